"""Members that share shards over a store in memory, with clocks of their own."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from pocket.coordination.elector import LeaseTiming
from pocket.coordination.lease_names import LeaseNames
from pocket.coordination.shard_leases import ShardLeaseManager
from pocket.coordination.stores.lease_store import LeaseConflict, LeaseUnavailable, StoredLease, write_each

WALL = datetime(2026, 1, 1, tzinfo=UTC)
TIMING = LeaseTiming()
SHARDS = 6


class MemoryStore:
    """The world's Leases.

    Each view is one candidate's connection.
    """

    def __init__(self):
        self.leases: dict[str, StoredLease] = {}
        self.version = 0

    def put(self, name, record):
        self.version += 1
        self.leases[name] = StoredLease(record, str(self.version))
        return self.leases[name]


@dataclass
class Connection:
    world: MemoryStore
    down: bool = False
    lose_replies: int = 0
    writes_raced: int = 0
    log: list = field(default_factory=list)

    async def read(self):
        if self.down:
            raise LeaseUnavailable("down")
        return dict(self.world.leases)

    async def write(self, name, record, known):
        if self.down:
            raise LeaseUnavailable("down")
        if self.writes_raced and name in self.world.leases:
            self.writes_raced -= 1
            self.world.put(name, self.world.leases[name].record)
        current = self.world.leases.get(name)
        if (current.version if current else None) != (known.version if known else None):
            raise LeaseConflict(name)
        stored = self.world.put(name, record)
        self.log.append((name, record))
        if self.lose_replies:
            self.lose_replies -= 1
            raise LeaseUnavailable("the reply was lost")
        return stored

    async def write_all(self, writes):
        return await write_each(self.write, writes, 8)


@dataclass
class Acting:
    """The shards on which one member acts.

    `known` is the highest epoch of fences and volumes.
    """

    known: dict[int, int]
    acts: dict[int, int] = field(default_factory=dict)
    history: list = field(default_factory=list)

    async def known_epoch(self, shard):
        return self.known.get(shard, 0)

    async def on_acquired(self, shard, epoch):
        assert shard not in self.acts
        self.acts[shard] = epoch
        self.history.append((shard, epoch))
        self.known[shard] = max(self.known.get(shard, 0), epoch)

    async def on_lost(self, shard):
        self.acts.pop(shard, None)


class Clock:
    def __init__(self, offset=0.0, rate=1.0):
        self.now, self.offset, self.rate = 0.0, offset, rate

    def __call__(self):
        return self.offset + self.now * self.rate


def member(world, number, clock, known):
    owner = Acting(known)
    connection = Connection(world)
    keeper = ShardLeaseManager(
        connection, LeaseNames("main-miner", SHARDS), f"main-miner-{number}_uid_{id(owner):x}", owner, TIMING,
        clock=clock, wall_clock=lambda: WALL,
    )  # fmt: skip
    return keeper, owner, connection


async def settled(members, clocks, *, ticks=40, seconds=2.0):
    for _ in range(ticks):
        for clock in clocks:
            clock.now += seconds
        for keeper, _, _ in members:
            await keeper.tick()


def group(number):
    world, known = MemoryStore(), {}
    clocks = [Clock(offset=7.0 * n) for n in range(number)]
    return world, clocks, [member(world, n, clock, known) for n, clock in enumerate(clocks)]
