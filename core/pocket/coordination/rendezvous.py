"""Rendezvous hashing of suppliers to shards and of shards to members."""

import hashlib


def weight(first: object, second: object) -> bytes:
    """Return the rendezvous weight of a pair. The heaviest wins, so few change owner."""
    return hashlib.sha256(f"{first}\0{second}".encode()).digest()


def shard_of(address: str, shards: int) -> int:
    """Return the shard of a supplier address, fixed for a number of shards."""
    return max(range(shards), key=lambda shard: weight(address, shard))
