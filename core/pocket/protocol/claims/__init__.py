"""Claims and proofs: amounts, proof requirement, proof path (protocol/claims-and-proofs.md)."""
