"""The relay ledger on Redis streams."""
