"""Build, sign and send claims and proofs."""
