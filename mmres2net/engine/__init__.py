"""Training and testing: from a config and flags to a run of MMEngine's Runner."""
