"""Build, sign and time transactions (docs/protocol/claims-and-proofs.md, section 6)."""
