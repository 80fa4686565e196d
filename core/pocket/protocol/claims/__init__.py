"""Compute amounts, proof requirement and proof path of claims.

Source: docs/protocol/claims-and-proofs.md.
"""
