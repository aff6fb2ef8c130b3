"""Downloads of data sets and weights: complete and verified, or absent."""
