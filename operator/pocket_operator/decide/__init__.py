"""Decide what a RelayMiner and its Suppliers should be.

Decisions are pure functions of a snapshot.
"""
