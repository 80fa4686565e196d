"""How miners of a RelayMiner share its suppliers: by Leases in Kubernetes, by the same records in Redis without it.

A Lease gives liveness only. Safety is the fence of each supplier in Redis and the seal: a former owner's writes are
refused, and nothing but sealed roots is ever broadcast (docs/fragile/ownership.md).
"""

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis

from coordination.elector import seat, timing_for_blocks
from coordination.kube_api import KubeError, connect
from coordination.kube_leases import KubeLeaseStore
from coordination.lease_store import LeaseStore
from coordination.sharding import LeaseNames, Owner, ShardKeeper
from ledger.keys import Keys
from miner.redis_leases import RedisLeaseStore
from pocket_api.workload import MinerConfig
from shannon.errors import ConfigurationError

_EMBEDDED_GROUP = "miners"


def identity_of(config: MinerConfig) -> str:
    """`name_uid_incarnation`: the name stays across restarts, and peers find the miner by it."""
    name = os.environ.get("POD_NAME") if config.lease else None
    name = name or f"{config.admin_host}:{config.admin_port}"
    return f"{name}_{os.environ.get('POD_UID', '')}_{secrets.token_hex(4)}"


def peer_urls(config: MinerConfig, keeper: ShardKeeper) -> list[str]:
    """Where the other miners that live, as last seen, can be asked."""

    def url(name: str) -> str:
        if config.lease is None:
            return f"http://{name}"
        return f"http://{name}.{config.peer_domain}:{config.admin_port}"

    me = seat(keeper.identity)
    return [url(name) for name in sorted({seat(member) for member in keeper.members} - {me})]


@asynccontextmanager
async def shard_keeper(config: MinerConfig, redis: "Redis", keys: Keys, owner: Owner) -> AsyncIterator[ShardKeeper]:
    """This miner's part in sharing; raises ConfigurationError where the API server cannot be used."""
    timing = timing_for_blocks(config.chain.block_seconds)

    def keeper(store: LeaseStore, group: str) -> ShardKeeper:
        return ShardKeeper(store, LeaseNames(group, config.shards), identity_of(config), owner, timing)

    if config.lease is None:
        yield keeper(RedisLeaseStore(redis, keys.leases, call_seconds=timing.call), _EMBEDDED_GROUP)
        return
    try:
        async with connect() as api:
            store = KubeLeaseStore(
                api, config.namespace, config.lease, call_seconds=timing.call,
                owner=config.lease_owner.model_dump(by_alias=True) if config.lease_owner else None,
            )  # fmt: skip
            yield keeper(store, config.lease)
    except KubeError as error:
        raise ConfigurationError(f"miner: {error}") from error
