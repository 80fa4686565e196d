"""Which shard a supplier belongs to: relayers wake the shard's owner, miners share shards."""

import hashlib


def weight(first: object, second: object) -> bytes:
    """The rendezvous weight of a pair: whoever weighs most is chosen, and a new candidate moves the least."""
    return hashlib.sha256(f"{first}\0{second}".encode()).digest()


def shard_of(address: str, shards: int) -> int:
    """The shard of a supplier address: fixed for a number of shards."""
    return max(range(shards), key=lambda shard: weight(address, shard))
