"""Own data in any config."""
