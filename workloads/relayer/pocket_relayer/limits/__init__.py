"""Limit what clients may use, and state what is rejected and why."""
