"""Claim and prove recorded relays."""
