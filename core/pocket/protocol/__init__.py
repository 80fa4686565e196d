"""Implement the Shannon protocol without any I/O."""
