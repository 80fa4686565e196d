"""The reference implementation of a remote signer (docs/signer.md)."""
