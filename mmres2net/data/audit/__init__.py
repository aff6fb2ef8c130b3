"""Reading all data that a config would read, and listing what is wrong with it."""
