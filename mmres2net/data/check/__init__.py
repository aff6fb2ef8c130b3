"""The check of data, before a run and as a command of its own: one job, with the readers of ``data/formats``."""
