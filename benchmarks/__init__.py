"""Benchmarks of this package against its peers; not part of the installed package. See docs/benchmarks.md."""
