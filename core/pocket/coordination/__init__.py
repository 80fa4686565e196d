"""Ownership of shards and fencing."""
