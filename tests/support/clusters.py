"""Real Clusters of Redis for tests: three primaries, each with a replica."""

import asyncio
import contextlib
import tempfile
from pathlib import Path

from redis.crc import key_slot

from pocket.redis_store.connection import connect
from pocket.redis_store.redis_errors import NATIVE_ERRORS
from relayctl.local_redis import LocalRedis, Topology
from servers import until

DURABLE = ("--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--maxmemory-policy", "noeviction")


class Cluster:
    """A running Cluster and a client of it."""

    def __init__(self, servers, redis):
        self.servers = servers
        self.redis = redis

    def run(self, name, *command):
        return self.servers._run(name, *command)

    def primary_of(self, key):
        """Return the name of the server that serves the key."""
        for first, last, primary, *_ in self.servers._slots(self.servers.servers[0]):
            if first <= key_slot(key.encode()) <= last:
                return next(name for name, port in self.servers.ports.items() if port == primary[1])
        raise LookupError(key)

    def primaries(self):
        found = self.servers._slots(self.servers.servers[0])
        return sorted({name for row in found for name, port in self.servers.ports.items() if port == row[2][1]})

    async def move(self, slot, target):
        """Move a slot with all its keys as `redis-cli --cluster reshard` does, some keys at a time."""
        source = next(
            name
            for first, last, primary, *_ in self.servers._slots(self.servers.servers[0])
            if first <= slot <= last
            for name, port in self.servers.ports.items()
            if port == primary[1]
        )
        await self.begin(slot, source, target)
        await self.end(slot, source, target)

    async def move_at_once(self, slot, source, target):
        """Move a slot by replication, as Valkey 9 does. Returns False if the server cannot."""
        node = self.servers.node_id(target)
        try:
            await asyncio.to_thread(self.run, source, "CLUSTER MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", node)
        except NATIVE_ERRORS as error:
            if "unknown subcommand" in str(error).lower():
                return False
            raise

        async def moved():
            return any(
                row[0] <= slot <= row[1] and row[2][1] == self.servers.ports[target]
                for row in await asyncio.to_thread(self.servers._slots, source)
            )

        await until(moved)
        return True

    async def begin(self, slot, source, target):
        """Leave the slot between two nodes."""
        await asyncio.to_thread(self.run, target, "CLUSTER SETSLOT", slot, "IMPORTING", self.servers.node_id(source))
        await asyncio.to_thread(self.run, source, "CLUSTER SETSLOT", slot, "MIGRATING", self.servers.node_id(target))

    async def end(self, slot, source, target):
        """Move the keys and assign the slot to its new node."""
        port = self.servers.ports[target]
        while keys := await asyncio.to_thread(self.run, source, "CLUSTER GETKEYSINSLOT", slot, 10):
            await asyncio.to_thread(self.run, source, "MIGRATE", "127.0.0.1", port, "", 0, 5000, "KEYS", *keys)
        node = self.servers.node_id(target)
        for name in (target, source, *self.primaries()):
            await asyncio.to_thread(self.run, name, "CLUSTER SETSLOT", slot, "NODE", node)


@contextlib.asynccontextmanager
async def running_cluster(**options):
    """Yield a Cluster, without replicas if `replicas` is False."""
    with tempfile.TemporaryDirectory(prefix="redis-cluster-") as folder:
        servers = LocalRedis(Path(folder), Topology.CLUSTER, options=DURABLE, **options)
        try:
            await asyncio.to_thread(servers.start)
            redis = connect(servers.url)
            try:
                yield Cluster(servers, redis)
            finally:
                await redis.aclose()
        finally:
            await asyncio.to_thread(servers.stop)
