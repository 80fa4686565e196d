"""Operator: pure builders of what a RelayMiner needs."""
