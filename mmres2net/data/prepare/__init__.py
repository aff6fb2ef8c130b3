"""Public data sets, from their official archives to the folders that the configs read."""
