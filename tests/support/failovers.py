"""One simulated life of a session: owners killed, frozen and replaced, a Redis that is lost, a chain that goes on.

Windows: the session is 1…10, claims in 12…16, proofs in 16…20, settlement in 20. In lives with an even seed relays
reach Redis at any time, also while sessions are being sealed; in the others Redis is lost once, and relays come before.
(Both at once is what no mode covers: an emptied Redis has forgotten that the session is closed.)
In every sixth life the relayer is frozen with its first relay; in every sixth owners change again and again while they
seal; in every sixth Redis is lost late.
"""

import asyncio
import functools
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import slow_curve as slow
from direct import DirectChain, DirectComet, DirectSettlements
from explorer import Explorer, GatedRedis
from mine import HereTriePool
from pocket.errors import PocketError
from pocket.protocol.relays.messages import relay_hash
from pocket.protocol.smst.digest import path_of
from pocket.protocol.transactions.build import GasPrice
from pocket.protocol.transactions.timeouts import UnorderedNonceAllocator
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.relay_recorder import RecorderLimits, RelayRecorder
from pocket.redis_store.seals import SealStore
from pocket.redis_store.store_errors import StaleEpoch
from pocket.redis_store.stream_reader import StreamReader
from pocket.redis_store.write_ahead_log import Segment, WalRecord
from pocket_localnet import ante
from pocket_localnet.hydration import hydrate
from pocket_localnet.local_chain import LocalChain
from pocket_miner.ingest.relay_consumer import RelayConsumer
from pocket_miner.storage.audit import Audit
from pocket_miner.storage.relay_store import RelayStore
from pocket_miner.submission.claims import ClaimSubmitter
from pocket_miner.submission.fees import FeeTracker
from pocket_miner.submission.proofs import ProofSubmitter
from pocket_miner.submission.sender import Sender
from pocket_miner.suppliers.supplier_miner import SupplierMiner
from world import World, address, key

SUPPLIER = address("alice")
LAST = 22
RELAYS = 6
KINDS, FROZEN, HASTY, LOST_LATE = 6, 0, 2, 3  # a life's kind is its seed modulo KINDS; the others are plain
VOLUMES = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())


@functools.cache
def prepared():
    """Genesis, header and signed relays: the same for every life, so they are made once."""
    world = World(suppliers=("alice",))
    genesis = world.genesis()
    chain = LocalChain(genesis)
    header = hydrate(chain.state, chain.block_hash, world.application("eth"), "eth", 1).header
    relays = [world.relay(header, "alice", number) for number in range(RELAYS)]
    end = header.session_end_block_height
    rows = [WalRecord(SUPPLIER, header.session_id, header.encode(), relay, end) for relay in relays]
    return genesis, header, rows


@functools.cache
def slow_root_of(relays: frozenset[bytes]) -> bytes:
    """Return the root by the independent implementation, with weight 100 for every relay."""
    return slow.trie_root({path_of(relay_hash(relay)): (relay, 100) for relay in relays})


class Watched(DirectChain):
    """Notes the root of every claim that anybody tries to send."""

    def __init__(self, life: "Life", gate) -> None:
        asking = asyncio.Lock()

        async def one_at_a_time(what: str) -> None:
            """Let an actor wait at one gate at a time, even for concurrent calls."""
            async with asking:
                await gate(what)

        super().__init__(life.chain, one_at_a_time)
        self._life = life

    async def broadcast(self, raw):
        for message in ante.decode(raw).messages:
            if hasattr(message, "root_hash"):
                self._life.sent_roots.append(bytes(message.root_hash))
        return await super().broadcast(raw)


@dataclass
class Owner:
    """A miner process: a name, an epoch and a volume."""

    name: str
    epoch: int
    volume: str
    rounds: int = 0
    miner: SupplierMiner | None = None


@dataclass
class Life:
    """One schedule, explored by `run`.

    `problems` lists the violations.
    """

    seed: int
    redis: object
    folder: Path = field(init=False)
    chain: LocalChain = field(init=False)
    owners: list[Owner] = field(default_factory=list)
    acknowledged: set[bytes] = field(default_factory=set)
    sent_roots: list[bytes] = field(default_factory=list)
    failovers: int = 0
    wipes: int = 0
    replaying: bool = False
    appending: bool = False
    rounds_at_block: int = 0
    decided_at: int = 0

    def __post_init__(self) -> None:
        self.genesis, self.header, self.rows = prepared()
        self.chain = LocalChain(self.genesis)
        self.keys = RedisKeys(f"life{self.seed}")
        self.explorer = Explorer(self.seed, self._allowed)
        self.chance = self.explorer.chance
        self.thaws_at = self.chance.randint(12, 18) if self.kind == FROZEN else 0
        self.folder = Path(tempfile.mkdtemp(prefix="life-", dir=VOLUMES))
        self.gated = GatedRedis(self.redis, self.explorer)

    # Who may go on.

    @property
    def owner(self) -> Owner:
        return self.owners[-1]

    @property
    def late(self) -> bool:
        """Whether relays may reach Redis late."""
        return self.seed % 2 == 0

    @property
    def kind(self) -> int:
        return self.seed % KINDS

    def _allowed(self, names: list[str]) -> list[str]:
        """Return the actors that may go next.

        The next block usually waits for the owner and the relayers, whose waits have deadlines.
        """
        living = self.owner.name in names or self.owner.name in self.explorer.alive
        held_up = self.decided_at < self.chain.height or self.replaying or not living
        held_up = held_up or (self.appending and not self.late)
        sealing = self.kind == HASTY and self.chain.height >= 13
        if held_up or self.chance.random() < (0.9 if sealing else 0.5):
            names = [name for name in names if name != "chain"] or names
        if self.appending and self.chain.height < self.thaws_at:
            names = [name for name in names if name != "relayer"]
        if self.late and self.chance.random() < (0.95 if self.chain.height >= 12 else 0.8):
            # Spread over the whole life, not all at its beginning.
            names = [name for name in names if name != "relayer"] or names
        if self.chance.random() < (0.4 if sealing else 0.7):
            # Former owners sleep for long; when they wake up they find another world.
            former = {owner.name for owner in self.owners[:-1]}
            names = [name for name in names if name not in former] or names
        return names

    # Actors.

    async def _blocks(self) -> None:
        while self.chain.height < LAST:
            await self.explorer.gate("block")
            self.chain.step()

    def _publisher(self) -> RelayRecorder:
        return RelayRecorder(self.gated, self.keys, None, RecorderLimits(linger_seconds=0))

    async def _append(self, publisher: RelayRecorder, rows: list[WalRecord]) -> None:
        closed = await publisher._append(SUPPLIER, rows, Segment(Path("none")))
        self.acknowledged |= {row.relay for row in rows if row.session_id not in closed}

    async def _relayer(self) -> None:
        publisher, left = self._publisher(), list(self.rows)
        last = 14 if self.late else 11
        while left and self.chain.height <= last:
            await self.explorer.gate("relay arrives")
            if self.chain.height > last:
                return
            batch, left = left[:1], left[1:]
            self.appending = True
            try:
                await self._append(publisher, batch)
            finally:
                self.appending = False

    async def _replay(self) -> None:
        """Append a relayer's log again after a restart of Redis.

        The new Redis knows no session ends.
        """
        rows = [replace(row, session_end=0) for row in self.rows if row.relay in self.acknowledged]
        try:
            if rows:
                await self._publisher()._append(SUPPLIER, rows, Segment(Path("none")))
        finally:
            self.replaying = False

    async def _mine(self, owner: Owner) -> None:
        mirror, audit = RelayStore(self.folder / owner.volume), Audit(self.folder / owner.volume / "audit.sqlite")
        try:
            owner.miner = self._miner(owner, mirror, audit)
            chain = Watched(self, self.explorer.gate)
            while not self._over(audit):
                try:
                    await owner.miner.tail()
                    block = await DirectComet(self.chain, self.explorer.gate).block()
                    await owner.miner.on_block(block, await chain.proof_params())
                except StaleEpoch:
                    return
                except PocketError:
                    await self.explorer.gate("tries again")
                    continue
                owner.rounds += 1
                if owner is self.owner:
                    self.decided_at = max(self.decided_at, block.height)
        finally:
            mirror.close()
            audit.close()

    def _over(self, audit: Audit) -> bool:
        return self.chain.height >= LAST and (
            audit.outcome(SUPPLIER, self.header.session_id) is not None or self.decided_at >= LAST
        )

    def _miner(self, owner: Owner, mirror: RelayStore, audit: Audit) -> SupplierMiner:
        chain = Watched(self, self.explorer.gate)
        gas_price, sessions, pool = GasPrice.parse("0.000001upokt"), {}, HereTriePool()
        fees = FeeTracker(gas_price, audit)
        store = SealStore(self.gated, self.keys, SUPPLIER, owner.epoch)
        sender = Sender(
            chain, SUPPLIER, key("alice"), chain_id="pocket", gas_price=gas_price, gas_adjustment=1.7,
            block_seconds=1.0, nonces=UnorderedNonceAllocator(offset=owner.epoch),
        )  # fmt: skip
        consumer = RelayConsumer(StreamReader(self.gated, self.keys, SUPPLIER), mirror, chain, sessions)

        async def confirm() -> None:
            await self.explorer.gate("looks at the Lease")
            if owner is not self.owner:
                raise StaleEpoch("the Lease is another's", self.owner.epoch)

        comet = DirectComet(self.chain, self.explorer.gate)
        return SupplierMiner(
            SUPPLIER, chain, DirectSettlements(comet), store, audit, mirror, consumer,
            ClaimSubmitter(SUPPLIER, store, audit, mirror, pool, sender, consumer, fees),
            ProofSubmitter(SUPPLIER, chain, comet, mirror, pool, sender, fees, store), sessions, 1,
            lambda: not self.replaying, confirm=confirm,
        )  # fmt: skip

    # What happens to them.

    def _take_over(self, *, kill: bool) -> None:
        """Another owner, on the volume of the killed one (the pod is started again) or on one of its own."""
        volume = f"volume-{len(self.owners)}"
        if kill:
            self.explorer.kill(self.owner.name)
            if self.chance.random() < 0.5:
                volume = self.owner.volume
        self._begin(volume)
        self.failovers += 1

    def _begin(self, volume: str) -> None:
        owner = Owner(f"owner-{len(self.owners)}", len(self.owners) + 1, volume)
        self.owners.append(owner)
        self.explorer.spawn(owner.name, lambda: self._mine(owner))

    @property
    def _changes(self) -> float:
        """Below this another owner comes."""
        if self.kind == HASTY:
            return 0.15 if self.chain.height >= 13 else 0
        return 0.02

    @property
    def _lasts(self) -> float:
        """Above this Redis is lost: what is to happen in a few blocks must be likelier."""
        if self.kind == LOST_LATE:
            return 0.97 if self.chain.height >= 13 else 1
        return 0.996

    async def _lose_redis(self) -> None:
        names = [name async for name in self.redis.scan_iter(f"{self.keys.prefix}:*")]
        if names:
            await self.redis.delete(*names)
        self.wipes += 1
        self.replaying = True
        for owner in self.owners:
            if owner.miner is not None:
                owner.miner.on_redis_restarted()
        self.explorer.spawn(f"replay-{self.wipes}", self._replay)

    async def _fate(self) -> None:
        if self.chain.height >= LAST:
            self._end_former()
            if self.owner.name not in self.explorer.alive and self.decided_at < LAST:
                self._begin(f"volume-{len(self.owners)}")
            return
        waits = self.owner.name in self.explorer._waiting
        draw = self.chance.random()
        if draw < self._changes and self.failovers < 6 and (waits or self.owner.name not in self.explorer.alive):
            self._take_over(kill=waits and self.chance.random() < 0.6)
        elif draw > self._lasts and not self.wipes and not self.late:
            await self._lose_redis()
        elif self.owner.name not in self.explorer.alive:
            self._take_over(kill=False)

    def _end_former(self) -> None:
        for owner in self.owners[:-1]:
            if owner.name in self.explorer._waiting and self.chance.random() < 0.2:
                self.explorer.kill(owner.name)
                return

    async def run(self) -> list[str]:
        """Run the schedule and return its problems, none if it passed."""
        # Scripts that an earlier life loaded would save this one a step, and its seed another schedule.
        await self.redis.script_flush()
        try:
            self.explorer.spawn("chain", self._blocks)
            self.explorer.spawn("relayer", self._relayer)
            self._begin("volume-0")
            await self.explorer.run(self._fate)
            return self._problems()
        finally:
            names = [name async for name in self.redis.scan_iter(f"{self.keys.prefix}:*")]
            if names:
                await self.redis.delete(*names)
            shutil.rmtree(self.folder, ignore_errors=True)

    def _problems(self) -> list[str]:
        found = []
        roots = set(self.sent_roots)
        if len(roots) > 1:
            found.append(f"I3: claims of {len(roots)} roots were sent")
        if roots and self.acknowledged and roots != {slow_root_of(frozenset(self.acknowledged))}:
            found.append("I1, I2: the claim is not the set of acknowledged relays")
        outcomes = self._outcomes()
        if len(set(outcomes)) > 1:
            found.append(f"I6: several outcomes: {outcomes}")
        wanted = ("settled", len(self.acknowledged))
        if self.acknowledged and set(outcomes) != {wanted}:
            found.append(f"{Counter(outcomes)} instead of {wanted}")
        return found

    def _outcomes(self) -> list[tuple[str, int]]:
        found = []
        for folder in sorted(self.folder.iterdir()):
            audit = Audit(folder / "audit.sqlite")
            try:
                found += [(row["outcome"], row["details"].get("relays", 0)) for row in audit.outcomes()]
            finally:
                audit.close()
        return found
