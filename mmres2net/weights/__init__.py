"""Weights: what is published (none is part of this project), reading them safely, recognising and loading them."""
