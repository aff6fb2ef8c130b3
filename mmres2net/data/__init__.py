"""Data: readers of the formats, checks, ``--data``, preparation of public sets, and the embedded set ``shapes``."""
