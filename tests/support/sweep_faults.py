"""One fault of one kind at one call of a boundary, or of every call while an outage lasts.

A boundary is where the miner, or the relayer that records for it, meets something that can fail.
"""

import asyncio
import contextlib
import pathlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import grpc
from redis.exceptions import ConnectionError as RedisDown
from redis.exceptions import ReadOnlyError, ResponseError

from direct import DirectChain, DirectComet
from loop_guard import Guarded
from pocket.chain.failures import error_from_status
from pocket.coordination.elector import LeaseRecord
from pocket.coordination.stores.lease_store import (
    LeaseConflict,
    LeaseUnavailable,
    LeaseWrite,
    StoredLease,
    WriteResult,
    write_each,
)
from pocket.errors import ChainUnavailable
from pocket.redis_store import write_ahead_log
from pocket.redis_store.redis_errors import translate
from pocket_localnet.local_chain import LocalChain
from pocket_miner.ingest.peers import routes
from pocket_miner.storage import database

LAG = 5
KINDS = {
    "chain": ("unavailable", "unknown", "denied", "hangs", "empty", "stale", "reply lost", "killed"),
    "rpc": ("unavailable", "unknown", "hangs", "stale", "empty", "killed"),
    "redis": ("lost before", "lost after", "read only", "out of memory", "killed"),
    "recorder": ("lost before", "lost after", "read only", "out of memory"),
    "sqlite": ("full", "locked", "I/O error", "slow", "killed"),
    "files": ("full", "I/O error", "short write", "slow", "killed"),
    "tries": ("worker killed", "worker hung", "raises", "killed"),
    "leases": ("lost", "away", "reply lost", "conflict", "slow", "killed"),
    "peers": ("hung", "refuses", "garbage", "killed"),
}
"""`hangs`: no answer before the next block. `killed`: SIGKILL of the whole process before the call.

The recorder is the relayer's connection to Redis.
"""


_WRITES = ("INSERT", "UPDATE", "DELETE", "COMMIT")


def writes(statement: str) -> bool:
    """Whether a statement takes space."""
    return statement.startswith(_WRITES)


class Killed(BaseException):
    """SIGKILL."""


@dataclass(frozen=True)
class Call:
    """A call as the life without a fault recorded it.

    `supplier` is the supplier being processed, or -1 for none.
    """

    boundary: str
    number: int
    name: str
    height: int
    supplier: int


@dataclass
class Fault:
    """A kind of fault at the nth call of a boundary.

    With `blocks`, at every call of that many blocks, or only at those of a `name`.

    Several boundaries are joined by `+`. Without one calls are only counted. The life sets height and supplier for the
    calls that come.
    """

    boundary: str = ""
    kind: str = ""
    at: int = -1
    blocks: int = 0
    first_block: int = 0
    name: str = ""
    height: int = 0
    supplier: int = -1
    calls: list[Call] = field(default_factory=list)
    held_up: list[str] = field(default_factory=list)
    """What was slow on the event loop."""
    _numbers: dict[str, int] = field(default_factory=dict)

    def due(self, boundary: str, name: str) -> str:
        """Return the fault for this call, if any.

        Raises Killed.
        """
        number = self._numbers.get(boundary, 0)
        self._numbers[boundary] = number + 1
        if not self.boundary:
            self.calls.append(Call(boundary, number, name, self.height, self.supplier))
        if boundary not in self.boundary.split("+") or self.name not in ("", name) or not self._now(number):
            return ""
        if self.kind == "killed":
            raise Killed
        return self.kind

    def _now(self, number: int) -> bool:
        if self.blocks:
            return self.first_block <= self.height < self.first_block + self.blocks
        return number == self.at

    def slow(self, name: str) -> None:
        """Block a thread for a moment, or record a call that would block the event loop."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            time.sleep(0.002)
        else:
            self.held_up.append(name)


def hang(chain: LocalChain) -> None:
    """Let a block's time pass without an answer. Raises ChainUnavailable."""
    chain.step()
    raise ChainUnavailable("no answer in time")


class FaultyChain(DirectChain):
    """The chain's gRPC interface."""

    def __init__(self, chain: LocalChain, fault: Fault) -> None:
        super().__init__(chain)
        self._fault = fault

    async def _call_raw(self, method, request, height=0):
        kind = self._fault.due("chain", method.rsplit("/", 1)[-1])
        if kind in ("unavailable", "unknown", "denied"):
            code = {"unknown": grpc.StatusCode.UNKNOWN, "denied": grpc.StatusCode.PERMISSION_DENIED}
            raise error_from_status(method, code.get(kind, grpc.StatusCode.UNAVAILABLE), "Stream removed")
        if kind == "hangs":
            hang(self._chain)
        if kind == "empty":
            return b""
        self._chain.faults.lag_blocks = LAG if kind == "stale" else 0
        try:
            answer = await super()._call_raw(method, request, height)
        finally:
            self._chain.faults.lag_blocks = 0
        if kind == "reply lost":
            raise ChainUnavailable("connection reset after sending")
        return answer


class FaultyComet(DirectComet):
    """CometBFT's RPC."""

    def __init__(self, chain: LocalChain, fault: Fault) -> None:
        super().__init__(chain)
        self._fault = fault

    def _due(self, name: str) -> str:
        kind = self._fault.due("rpc", name)
        if kind in ("unavailable", "unknown"):
            raise ChainUnavailable(kind)
        if kind == "hangs":
            hang(self._chain)
        return kind

    async def block(self, height=None):
        kind = self._due("commit")
        return await super().block(max(1, (height or self._chain.height) - LAG) if kind == "stale" else height)

    async def end_events(self, height, wanted):
        return () if self._due("block_results") == "empty" else await super().end_events(height, wanted)


class FaultyRedis:
    """Redis, as the miner or the relayer (`recorder`) reaches it."""

    def __init__(self, redis: Any, fault: Fault, boundary: str = "redis") -> None:
        self._redis = redis
        self._fault = fault
        self._boundary = boundary

    def _wrapped(self, name, command):
        async def call(*arguments, **options):
            kind = self._fault.due(self._boundary, name)
            refusals = {"read only": ReadOnlyError("You can't write against a read only replica."),
                        "out of memory": ResponseError("OOM command not allowed when used memory > 'maxmemory'."),
                        "lost before": RedisDown("reset")}  # fmt: skip
            if kind in refusals:
                raise translate(refusals[kind])
            answer = await command(*arguments, **options)
            if kind == "lost after":
                raise translate(RedisDown("reset after sending"))
            return answer

        return call

    def pipeline(self, **options):
        pipe = self._redis.pipeline(**options)
        pipe.execute = self._wrapped("pipeline", pipe.execute)
        return pipe

    def __getattr__(self, name):
        found = getattr(self._redis, name)
        return self._wrapped(name, found) if callable(found) else found


@contextlib.contextmanager
def faulty_sqlite(fault: Fault, folder: Path) -> Iterator[None]:
    """Statements on the files of the miner's folder fail, the tries' readers among them."""

    class Faulty(Guarded):
        def _look(self, sql):
            if sql.startswith(("PRAGMA", "ROLLBACK")) or "CREATE" in sql:
                return
            kind = fault.due("sqlite", " ".join(sql.split()[:3]))
            texts = {"full": "database or disk is full", "locked": "database is locked", "I/O error": "disk I/O error",
                     "read-only": "attempt to write a readonly database"}  # fmt: skip
            if kind == "slow":
                fault.slow(sql)
            elif kind in ("full", "read-only") and not writes(sql):
                return  # it can be read
            elif kind:
                raise sqlite3.OperationalError(texts[kind])

        def execute(self, sql, *arguments):
            self._look(sql)
            return super().execute(sql, *arguments)

        def executemany(self, sql, *arguments):
            self._look(sql)
            return super().executemany(sql, *arguments)

    class Module:
        def __getattr__(self, name):
            return getattr(sqlite3, name)

        def connect(self, name, **options):
            factory = Faulty if str(folder) in str(name) else Guarded
            return sqlite3.connect(name, **{**options, "factory": factory})

    database.sqlite3 = Module()
    try:
        yield
    finally:
        database.sqlite3 = sqlite3


@contextlib.contextmanager
def faulty_files(fault: Fault, folder: Path) -> Iterator[None]:
    """Fail calls on files below a folder: the relayer's log, and the miner's deletions."""

    def look(name: str, *, log: bool = False) -> str:
        kind = fault.due("files", name)
        if kind == "slow" and not log:
            fault.slow(name)
        if kind in ("full", "I/O error"):
            raise OSError(28 if kind == "full" else 5, kind)
        return kind

    real_os = write_ahead_log.os

    class Os:
        def __getattr__(self, name):
            return getattr(real_os, name)

        def write(self, number, data):
            # One write into the page cache: it is meant to be on the loop.
            kind = look("write", log=True)
            return real_os.write(number, data[: len(data) // 2] if kind == "short write" else data)

    kept = {name: getattr(pathlib.Path, name) for name in ("unlink", "open", "read_bytes", "rename")}

    def wrapped(name):
        def call(path, *arguments, **options):
            if folder in path.parents:
                look(name, log="relayer" in path.parts)
            return kept[name](path, *arguments, **options)

        return call

    write_ahead_log.os = Os()
    for name in kept:
        setattr(pathlib.Path, name, wrapped(name))
    try:
        yield
    finally:
        write_ahead_log.os = real_os
        for name, method in kept.items():
            setattr(pathlib.Path, name, method)


class FaultyProcess(Executor):
    """A process of the trie pool, whose work is done by a thread."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self._thread = ThreadPoolExecutor(1)

    def submit(self, work, /, *arguments, **options):
        kind, failed = self._fault.due("tries", work.__name__), Future()
        if kind == "worker killed":
            failed.set_exception(BrokenProcessPool("a process was terminated abruptly"))
        elif kind == "raises":
            failed.set_exception(MemoryError())
        elif not kind:
            return self._thread.submit(work, *arguments, **options)
        return failed  # of a process that hangs nothing is heard

    def shutdown(self, wait=True, *, cancel_futures=False):
        self._thread.shutdown(wait=wait, cancel_futures=cancel_futures)


class FaultyLeases:
    """The Leases of the group in memory.

    A stranger that takes one returns it at the next poll.
    """

    def __init__(self, leases: dict[str, StoredLease], fault: Fault, freeze: Any) -> None:
        self._leases = leases
        self._fault = fault
        self._freeze = freeze

    def _put(self, name: str, record: LeaseRecord) -> StoredLease:
        known = self._leases.get(name)
        self._leases[name] = StoredLease(record, str(int(known.version if known else 0) + 1))
        return self._leases[name]

    def _due(self, name: str) -> str:
        kind = self._fault.due("leases", name)
        if kind == "away":
            raise LeaseUnavailable("the API server does not answer")
        if kind == "conflict":
            raise LeaseConflict(name)
        if kind == "slow":
            self._freeze()
        return kind

    async def read(self) -> dict[str, StoredLease]:
        for name, found in list(self._leases.items()):
            if found.record.holder == "stranger":
                self._put(name, LeaseRecord("", 1, found.record.acquired, found.record.renewed,
                                            found.record.transitions))  # fmt: skip
        try:
            kind = self._due("read")
        except LeaseConflict:
            kind = ""  # a read meets none
        if kind == "lost":
            for name, found in list(self._leases.items()):
                if "shard" in name:
                    row = found.record
                    self._put(name, LeaseRecord("stranger", row.lease_seconds, row.acquired, row.renewed,
                                                row.transitions + 1))  # fmt: skip
        found = dict(self._leases)
        if kind == "reply lost":
            raise LeaseUnavailable("the reply was lost")
        return found

    async def write(self, name: str, record: LeaseRecord, known: StoredLease | None) -> StoredLease:
        kind = self._due("write")
        current = self._leases.get(name)
        if (current.version if current else None) != (known.version if known else None):
            raise LeaseConflict(name)
        stored = self._put(name, record)
        if kind == "reply lost":
            raise LeaseUnavailable("the reply was lost")
        if kind == "lost":
            self._put(name, LeaseRecord("stranger", record.lease_seconds, record.acquired, record.renewed,
                                        record.transitions + 1))  # fmt: skip
        return stored

    async def write_all(self, writes: Sequence[LeaseWrite]) -> list[WriteResult]:
        return await write_each(self.write, writes, 1)


GARBAGE = (b"<html>502</html>", b"null", b'{"relays": 7}', b'[{"session_id": null}]')


class FaultyPeer:
    """The other miner's port as an HTTP session, with the real handlers on its volume."""

    def __init__(self, fault: Fault, volume: tuple[Any, Any]) -> None:
        self._fault = fault
        self._handlers = {route.path: route.handler for route in routes(lambda: volume)}

    @contextlib.asynccontextmanager
    async def get(self, url, *, params, timeout):  # noqa: ASYNC109 - as aiohttp's
        kind = self._fault.due("peers", path := f"/{url.split('/', 3)[3]}")
        if kind == "hung":
            raise TimeoutError
        if kind == "refuses":
            raise aiohttp.ClientConnectionError("connection refused")
        if kind == "garbage":
            yield _Answer(GARBAGE[self._fault.at % len(GARBAGE)])
            return
        answer = await self._handlers[path](SimpleNamespace(query=params))
        yield _Answer(answer.body, answer.status)


@dataclass
class _Answer:
    body: bytes
    status: int = 200

    @property
    def content(self):
        return self

    async def iter_chunked(self, _):
        yield self.body

    def raise_for_status(self):
        if self.status >= 400:
            raise aiohttp.ClientError(str(self.status))
