"""Figure 4 of the paper: networks that differ in cardinality, depth or scale alone, trained and drawn by their size."""
