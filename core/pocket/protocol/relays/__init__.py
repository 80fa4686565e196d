"""Encode and decode relay messages.

With signable hashes, the relay hash, difficulty and the HTTP envelope.
"""
