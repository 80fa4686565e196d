"""One life of two sessions with exactly one fault, at one call of one boundary. Everything else is the real code.

A boundary is where the miner meets something that can fail: the chain's gRPC interface, CometBFT's RPC, Redis, SQLite.
The first life has no fault and tells how many calls there are; then each call of each boundary gets each kind of fault.
"""

import contextlib
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from redis.exceptions import ConnectionError as RedisDown
from redis.exceptions import ReadOnlyError, ResponseError

from direct import DirectChain, DirectComet, DirectSettlements
from ledger.keys import Keys
from ledger.local_log import Record, Segment
from ledger.publisher import Publisher, PublisherLimits
from ledger.seals import SealStore
from ledger.tail import Tail
from localnet.chain import Chain
from localnet.hydration import hydrate
from mine import HereTriePool
from miner import audit as audit_module
from miner import mirror as mirror_module
from miner.audit import Audit
from miner.claims import ClaimDesk
from miner.fees import FeeBook
from miner.mirror import Mirror
from miner.proofs import ProofDesk
from miner.running import TROUBLE
from miner.sender import Sender
from miner.supplier_miner import SupplierMiner
from miner.tailing import Tailer
from shannon.chain.failures import error_from_status
from shannon.errors import ChainUnavailable
from shannon.transactions.build import GasPrice
from shannon.transactions.timeouts import NonceClock
from world import World, address, key

SUPPLIER = address("alice")
STAKE = 10**9
LAST = 24
LAG = 5
KINDS = {
    "chain": ("unavailable", "unknown", "denied", "empty", "stale", "reply lost", "killed before", "killed after"),
    "rpc": ("unavailable", "unknown", "stale", "empty"),
    "redis": ("lost before", "lost after", "read only", "out of memory", "killed before", "killed after"),
    "sqlite": ("full", "locked", "I/O error", "killed before"),
}
VOLUMES = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())


class Killed(BaseException):
    """SIGKILL."""


@dataclass
class Fault:
    """A kind of fault at the nth call of a boundary; without one the calls are only counted."""

    boundary: str = ""
    kind: str = ""
    at: int = -1
    calls: Counter[str] = field(default_factory=Counter)

    def due(self, boundary: str) -> str:
        """The kind where this call is the one, else nothing."""
        number = self.calls[boundary]
        self.calls[boundary] += 1
        return self.kind if (boundary, number) == (self.boundary, self.at) else ""


class FaultyChain(DirectChain):
    def __init__(self, chain: Chain, fault: Fault) -> None:
        super().__init__(chain)
        self._fault = fault

    async def _call_raw(self, method, request, height=0):
        kind = self._fault.due("chain")
        if kind == "killed before":
            raise Killed
        if kind in ("unavailable", "unknown", "denied"):
            code = {"unknown": grpc.StatusCode.UNKNOWN, "denied": grpc.StatusCode.PERMISSION_DENIED}
            raise error_from_status(method, code.get(kind, grpc.StatusCode.UNAVAILABLE), "Stream removed")
        if kind == "empty":
            return b""
        self._chain.faults.lag_blocks = LAG if kind == "stale" else 0
        try:
            answer = await super()._call_raw(method, request, height)
        finally:
            self._chain.faults.lag_blocks = 0
        if kind == "killed after":
            raise Killed
        if kind == "reply lost":
            raise ChainUnavailable("connection reset after sending")
        return answer


class FaultyComet(DirectComet):
    def __init__(self, chain: Chain, fault: Fault) -> None:
        super().__init__(chain)
        self._fault = fault

    def _fail(self, kind: str) -> None:
        if kind in ("unavailable", "unknown"):
            raise ChainUnavailable(kind)

    async def block(self, height=None):
        kind = self._fault.due("rpc")
        self._fail(kind)
        return await super().block(max(1, (height or self._chain.height) - LAG) if kind == "stale" else height)

    async def end_events(self, height, wanted):
        kind = self._fault.due("rpc")
        self._fail(kind)
        return () if kind == "empty" else await super().end_events(height, wanted)


class FaultyRedis:
    def __init__(self, redis: Any, fault: Fault) -> None:
        self._redis = redis
        self._fault = fault

    def _wrapped(self, command):
        async def call(*arguments, **options):
            kind = self._fault.due("redis")
            refusals = {"read only": ReadOnlyError("You can't write against a read only replica."),
                        "out of memory": ResponseError("OOM command not allowed when used memory > 'maxmemory'."),
                        "lost before": RedisDown("reset"), "killed before": Killed()}  # fmt: skip
            if kind in refusals:
                raise refusals[kind]
            answer = await command(*arguments, **options)
            if kind == "lost after":
                raise RedisDown("reset after sending")
            if kind == "killed after":
                raise Killed
            return answer

        return call

    def pipeline(self, **options):
        pipe = self._redis.pipeline(**options)
        pipe.execute = self._wrapped(pipe.execute)
        return pipe

    def __getattr__(self, name):
        return self._wrapped(getattr(self._redis, name))


@contextlib.contextmanager
def faulty_sqlite(fault: Fault) -> Iterator[None]:
    """Statements of the miner's own files fail; the tries' readers are not among them."""

    class Faulty(sqlite3.Connection):
        def _look(self, sql):
            if sql.startswith(("PRAGMA", "ROLLBACK")) or "CREATE" in sql:
                return
            kind = fault.due("sqlite")
            if kind == "killed before":
                raise Killed
            texts = {"full": "database or disk is full", "locked": "database is locked", "I/O error": "disk I/O error"}
            if kind:
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

        def connect(self, *arguments, **options):
            return sqlite3.connect(*arguments, factory=Faulty, **options)

    modules = (audit_module, mirror_module)
    for module in modules:
        module.sqlite3 = Module()
    try:
        yield
    finally:
        for module in modules:
            module.sqlite3 = sqlite3


@dataclass
class Script:
    """The same sessions and relays for every life: making relays costs more than living one."""

    genesis: Any
    headers: list
    rows: list

    @classmethod
    def make(cls) -> "Script":
        world = World(suppliers=("alice",), services=("eth", "base"))
        genesis = world.genesis()
        chain = Chain(genesis)
        headers = [
            hydrate(chain.state, chain.block_hash, world.application(s), s, 1).header for s in ("eth", "base")
        ]
        rows = [
            [Record(SUPPLIER, h.session_id, h.encode(), world.relay(h, "alice", n), h.session_end_block_height)
             for n in range(first, first + 3)]
            for first, h in zip((0, 100), headers, strict=True)
        ]  # fmt: skip
        return cls(genesis, headers, rows)


class Life:
    """`restart` is a height at which the miner is started anew, besides where it is killed."""

    def __init__(self, script: Script, redis: Any, fault: Fault, restart: int = 0) -> None:
        self.script, self.redis, self.fault, self.restart = script, redis, fault, restart
        self.chain = Chain(script.genesis)
        self.keys = Keys("sweep")
        self.folder = Path(tempfile.mkdtemp(prefix="sweep-", dir=VOLUMES))
        self.epoch = 0
        self.mirror = self.audit = None

    def _start(self) -> None:
        self._close()
        self.epoch += 1
        self.mirror, self.audit = Mirror(self.folder / "mirror"), Audit(self.folder / "audit.sqlite")
        chain, self.comet = FaultyChain(self.chain, self.fault), FaultyComet(self.chain, self.fault)
        redis, self.client = FaultyRedis(self.redis, self.fault), chain
        price, sessions, pool = GasPrice.parse("0.000001upokt"), {}, HereTriePool()
        store, fees = SealStore(redis, self.keys, SUPPLIER, self.epoch), FeeBook(price, self.audit)
        sender = Sender(chain, SUPPLIER, key("alice"), chain_id="pocket", gas_price=price, gas_adjustment=1.7,
                        block_seconds=1.0, nonces=NonceClock(lane=self.epoch))  # fmt: skip
        tailer = Tailer(Tail(redis, self.keys, SUPPLIER), self.mirror, chain, sessions)
        self.miner = SupplierMiner(
            SUPPLIER, chain, DirectSettlements(self.comet), store, self.audit, self.mirror, tailer,
            ClaimDesk(SUPPLIER, store, self.audit, self.mirror, pool, sender, tailer, fees),
            ProofDesk(SUPPLIER, chain, self.comet, self.mirror, pool, sender, fees, store), sessions, 1, lambda: True,
        )  # fmt: skip

    def _close(self) -> None:
        for file in filter(None, (self.mirror, self.audit)):
            file.close()
        self.mirror = self.audit = None

    async def _decide(self) -> None:
        await self.miner.on_block(await self.comet.block(), await self.client.proof_params())

    async def _step(self) -> None:
        """As the miner's tasks do it: tailing and deciding fail apart, and what failed is decided again."""
        for work in (self.miner.tail, self._decide, self._decide):
            with contextlib.suppress(*TROUBLE):
                await work()

    async def run(self) -> list[str]:
        """What was lost; nothing where all is well."""
        await self.redis.flushdb()
        try:
            with faulty_sqlite(self.fault):
                self._start()
                publisher = Publisher(self.redis, self.keys, None, PublisherLimits(linger_seconds=0))
                for rows in self.script.rows:
                    await publisher._append(SUPPLIER, rows, Segment(Path("none")))
                while self.chain.height < LAST:
                    self.chain.step()
                    if self.chain.height == self.restart:
                        self._start()
                    try:
                        await self._step()
                    except Killed:
                        self._start()
                        await self._step()
                self.fault.at = -1
                return self._losses()
        finally:
            self._close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _losses(self) -> list[str]:
        ended = {row["session_id"]: row["outcome"] for row in self.audit.outcomes()}
        found = [outcome for h in self.script.headers if (outcome := ended.get(h.session_id, "none")) != "settled"]
        stake = self.chain.state.suppliers[SUPPLIER].stake_upokt
        return found + ([f"slashed {STAKE - stake}"] if stake != STAKE else [])
