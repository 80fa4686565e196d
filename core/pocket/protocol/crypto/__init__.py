"""Curve arithmetic, signatures and addresses (docs/protocol/ring-signatures.md)."""
