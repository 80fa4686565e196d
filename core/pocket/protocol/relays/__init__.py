"""Relay messages: canonical encodings, signable hashes, relay hash, difficulty, HTTP envelope."""
