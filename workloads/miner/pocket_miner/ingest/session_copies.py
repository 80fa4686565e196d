"""Copy a session to a temporary file while the volume fails.

It cannot store or return relays then. A claim or a proof needs the leaves of its session, not the volume: they are also
in the stream, and with peers. A copy has all that can be read of the three. It takes the place of the session's file on
the volume for one root or one proof.
"""

import asyncio
import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.errors import ChainError, DecodingError
from pocket.protocol.crypto.ring import ExpectedRing
from pocket.redis_store.store_errors import RedisUnavailable
from pocket.redis_store.stream_reader import StreamExtent
from pocket_miner.ingest.peer_merge import extents, new_leaves
from pocket_miner.ingest.peers import Peers
from pocket_miner.ingest.relay_consumer import RelayConsumer
from pocket_miner.ingest.relay_signatures import ring_of
from pocket_miner.relay_rows import Leaf
from pocket_miner.sessions.leaf_validation import LeafTerms, terms_of_root, valid_leaves
from pocket_miner.sessions.relay_sources import CopyFailed
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.storage.corruption import VolumeCorrupted
from pocket_miner.storage.relay_store import RelayStore, SessionEndFile

_LOG: FilteringBoundLogger = structlog.get_logger()
_ENTRIES_AT_ONCE: Final = 200
_PAGE_BYTES: Final = 4 * 1024 * 1024
_MAX_BYTES: Final = 192 * 1024 * 1024
"""Largest copy, about a million relays. The temporary folder of a pod holds 256 MiB."""
FOLDER_PREFIX: Final = "pocket-copy-"


@dataclass(slots=True)
class SessionCopies:
    """Copies sessions of one supplier.

    All suppliers of a process share `turn`, so that one copy exists at a time.
    """

    consumer: RelayConsumer
    relay_store: RelayStore
    peers: Peers | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @contextlib.asynccontextmanager
    async def of(self, session: TrackedSession, *, root: bytes = b"", nearest: bytes = b"") -> AsyncIterator[Path]:
        """Copy a session and return the path of the copy.

        It is deleted at the end of the context. The copy has the values of the leaves that may be nearest to the path
        `nearest`, no values without it. If the leaves' `root` is known, an incomplete copy does no harm, so Redis, the
        terms and the ring may be unavailable. Raises CopyFailed, OSError, sqlite3.Error, and RedisUnavailable.
        """
        terms = session.terms or terms_of_root(self.consumer.supplier, session.header, root)
        if terms is None:
            raise CopyFailed("the terms of the session are not known yet")
        async with self.turn:
            folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix=FOLDER_PREFIX))
            try:
                copy = _Copy(folder / "copy.sqlite", session, terms, nearest)
                try:
                    await asyncio.to_thread(copy.open)
                    await self._fill(copy, session, root_known=bool(root))
                finally:
                    await asyncio.to_thread(copy.close)
                yield copy.path
            except VolumeCorrupted as error:  # of the copy, not of the volume
                raise CopyFailed(f"the copy of the session cannot be used: {error.__cause__ or error}") from None
            finally:
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _fill(self, copy: "_Copy", session: TrackedSession, *, root_known: bool) -> None:
        # In this order: leaves that came after a seal are left out from the latest on.
        try:
            await asyncio.to_thread(self._copy_volume, copy, session)
        except (sqlite3.Error, OSError) as error:
            _LOG.info("relays not copied from the volume", session=session.session_id, error=error)
        try:
            await self._copy_stream(copy, session)
        except RedisUnavailable as error:
            if not root_known:
                raise
            _LOG.info("relays not copied from Redis", session=session.session_id, error=error)
        await self._copy_peers(copy, session, root_known=root_known)
        _LOG.warning("session copied, the volume cannot be used", session=session.session_id, relays=copy.leaves)

    def _copy_volume(self, copy: "_Copy", session: TrackedSession) -> None:
        file, after = self.relay_store.known(session.end), b""
        while file is not None:
            relays, after = file.page(self.consumer.supplier, session.session_id, after, _PAGE_BYTES)
            if not relays:
                return
            copy.add(relays)

    async def _copy_stream(self, copy: "_Copy", session: TrackedSession) -> None:
        position = "0-0"
        while True:
            read = await self.consumer.tail.read({session.session_id: position}, _ENTRIES_AT_ONCE)
            entries = read.get(session.session_id)
            if not entries:
                return
            position = entries[-1].id
            await copy.take([entry.relay for entry in entries])

    async def _copy_peers(self, copy: "_Copy", session: TrackedSession, *, root_known: bool) -> None:
        if self.peers is None:
            return
        try:
            copy.ring = await ring_of(self.consumer.start_params.chain, session.header)
        except (ChainError, DecodingError) as error:
            if not root_known:  # with a known root, no leaf of others is in the sealed set
                _LOG.info("relays not copied from peers, their ring is unknown", error=error)
                return
        _, rows = await self.peers.sessions(self.consumer.supplier)
        rows = [row for row in rows if row.session_id == session.session_id]
        reach = (await extents(self.consumer, [session.session_id])).get(session.session_id, StreamExtent())
        for row in rows:
            if row.may_have_more(self.consumer.origin, reach):
                await self.peers.relays(row, self.consumer.supplier, session.end, copy.take)


class _Copy:
    """A file with the leaves of one session."""

    def __init__(self, path: Path, session: TrackedSession, terms: LeafTerms, nearest: bytes) -> None:
        self.path = path
        self.leaves = 0
        self.ring: ExpectedRing | None = None
        """The ring whose signatures are verified, None for relays from the volume and the stream."""
        self._session = session
        self._terms = terms
        self._nearest = int.from_bytes(nearest) if nearest else None
        self._distances: list[int] = []
        self._file: SessionEndFile | None = None

    def open(self) -> None:
        """Create the file."""
        self._file = SessionEndFile(self.path)
        self._file.add_session(self._terms.supplier, self._session.session_id, self._session.header.encode())

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def add(self, relays: Sequence[bytes]) -> None:
        """Add the valid ones of some relays.

        Raises CopyFailed if the copy is too large.
        """
        if self._file is None:
            return
        new: Sequence[Leaf] = valid_leaves(relays, self._terms)
        if self.ring is not None:
            new = new_leaves(self._file, self._session.session_id, new, self._terms.supplier, self.ring)
        leaves = [self._lean(leaf) for leaf in new]
        self.leaves += self._file.add(self._terms.supplier, self._session.session_id, leaves)
        if sum(path.stat().st_size for path in self.path.parent.iterdir()) > _MAX_BYTES:
            raise CopyFailed(f"the session has more than {_MAX_BYTES >> 20} MiB of leaves")

    async def take(self, relays: Sequence[bytes]) -> None:
        """Add relays, in a thread."""
        await asyncio.to_thread(self.add, relays)

    def _lean(self, leaf: Leaf) -> Leaf:
        """Return the leaf, without its value unless it is one of the two nearest so far.

        A proof needs the value of the nearest leaf, and may need that of the second as its sibling.
        """
        if self._nearest is not None:
            distance = int.from_bytes(leaf.path) ^ self._nearest
            self._distances = sorted({*self._distances, distance})[:2]
            if distance in self._distances:
                return leaf
        return leaf._replace(value=b"")
