"""Benchmarks: what is compared is first found equal, then timed in turns; the page of results is generated."""
