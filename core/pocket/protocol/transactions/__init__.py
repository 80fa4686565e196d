"""Building, signing and timing of transactions (claims-and-proofs.md, section 6)."""
