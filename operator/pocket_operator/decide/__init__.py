"""Decide what a RelayMiner and its Suppliers should be, as pure functions of a snapshot."""
