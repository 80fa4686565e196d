"""Measurements of the product, run with `make bench`."""
