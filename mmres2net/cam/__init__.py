"""Class activation maps (section 4.5, figure 5): which places of an image speak for a class."""
