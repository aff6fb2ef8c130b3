"""``mmres2net doctor``: what of the environment is missing, mixed up or half working, each with its remedy."""
