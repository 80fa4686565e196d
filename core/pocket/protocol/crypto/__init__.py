"""Curve arithmetic, signatures and addresses (protocol/ring-signatures.md)."""
