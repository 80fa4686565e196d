"""Leaves and sessions as ingest, sessions and storage exchange them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Leaf(NamedTuple):
    """A leaf that passed validation."""

    path: bytes
    digest: bytes
    weight: int
    value: bytes


@dataclass(frozen=True, slots=True)
class LeafBatch:
    """New leaves of one session, and the position that its stream was read up to.

    `refused` is the number of entries that became no leaf, `terms` identifies those by which the leaves are valid,
    `params` are those of the session's start (`pocket_miner.sessions.recorded_terms`).
    """

    supplier: str
    session_id: str
    leaves: Sequence[Leaf]
    refused: int
    position: str
    origin: str
    terms: str = ""
    params: str = ""


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A stored session with its stream's position and the terms of its leaves.

    Both as in `LeafBatch`.

    `origin` is that of the position: see `pocket.redis_store.stream_reader.origin_of`.
    """

    supplier: str
    session_id: str
    header: bytes
    position: str
    origin: str
    terms: str = ""
    params: str = ""
