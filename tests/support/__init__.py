"""Builders, servers and helpers that tests of several packages share; no test is in here."""
