"""Build, sign and time transactions.

Source: docs/protocol/claims-and-proofs.md, section 6.
"""
