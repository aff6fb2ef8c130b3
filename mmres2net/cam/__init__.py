"""Class activation maps (section 4.5, figure 5): which regions of an image support a class."""
