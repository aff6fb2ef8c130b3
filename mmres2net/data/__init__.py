"""Data sets: the embedded set `shapes`, which the project draws itself for its demo and its tests."""
