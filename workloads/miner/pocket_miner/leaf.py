"""Define the leaf of a session's trie as ingest, storage and sealing exchange it."""

from typing import NamedTuple


class Leaf(NamedTuple):
    """A leaf that passed validation."""

    path: bytes
    digest: bytes
    weight: int
    value: bytes
