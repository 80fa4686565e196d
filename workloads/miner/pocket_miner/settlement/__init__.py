"""Conclude sessions from what the chain states about their claims."""
