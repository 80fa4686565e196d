"""Elect leaders and share shards between replicas."""
