"""Measurements; never tests. Run with `make bench`."""
