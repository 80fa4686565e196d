"""Supplier keys: files, folders, environment (protocol/relay-miner-behaviour.md, section 6)."""
