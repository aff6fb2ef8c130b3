"""Runs side by side: differences of metrics with intervals, and a report of them."""
