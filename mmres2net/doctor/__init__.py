"""``mmres2net doctor``: check the environment, and say what to do about each fault."""
