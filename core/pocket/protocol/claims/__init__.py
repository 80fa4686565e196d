"""Claims and proofs: amounts, proof requirement, proof path (docs/protocol/claims-and-proofs.md)."""
