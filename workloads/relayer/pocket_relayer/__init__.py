"""Relayer: admits, serves, signs and records relays."""
