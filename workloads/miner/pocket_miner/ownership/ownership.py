"""Share the suppliers of a RelayMiner among its miners by Leases.

Leases are Kubernetes objects, or the same records in Redis without Kubernetes. A Lease gives liveness only. Safety
comes from the fence of each supplier in Redis and from the seal: writes of a former owner are rejected, and only
sealed roots are ever broadcast (docs/fragile/ownership.md).
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

from redis.asyncio import Redis

from pocket.api.workload import MinerConfig
from pocket.coordination.elector import member_location, member_name, timing_for_blocks
from pocket.coordination.lease_names import LeaseNames
from pocket.coordination.shard_leases import ShardLeaseManager, ShardListener
from pocket.coordination.stores.lease_store import LeaseStore
from pocket.errors import ConfigurationError
from pocket.platform import Platform
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.redis_leases import RedisLeaseStore

if TYPE_CHECKING:
    from pocket.kube.api_client import KubeApi

_EMBEDDED_GROUP = "miners"
_WILDCARDS = frozenset({"", "0.0.0.0", "::"})


def identity_of(config: MinerConfig, member: str, platform: Platform) -> str:
    """Return `name_place_incarnation`, the identity under which a miner holds Leases.

    The name stays across restarts, and no two running miners have the same: a miner that finds a Lease of its own name
    knows that the process which took it is gone. In Kubernetes the name is the StatefulSet pod's, elsewhere it is
    `member`, the name of the volume whose lock this process holds. The place is the pod's uid, or the address at which
    peers reach the miner. The incarnation differs at each start, so that a former process of the same name is fenced
    like any other owner.
    """
    incarnation, environment = platform.unique()[:8], platform.environment
    pod = environment.get("POD_NAME") if config.lease else None
    if pod:
        return f"{pod}_{environment.get('POD_UID', '')}_{incarnation}"
    return f"{member}_{config.admin_host}:{config.admin_port}_{incarnation}"


def serves_peers(config: MinerConfig) -> bool:
    """Return True if other miners can connect to this one's admin port.

    Outside of Kubernetes they connect to `admin_host`, and a wildcard is no address to connect to.
    """
    return config.lease is not None or config.admin_host not in _WILDCARDS


def peer_urls(config: MinerConfig, keeper: ShardLeaseManager) -> list[str]:
    """Return the URLs of the other miners that were recently live.

    Also if the store has lost their Leases since. Miners whose admin port listens on a wildcard have none.
    """

    def url(identity: str) -> str:
        if config.lease is None:
            location = member_location(identity)
            return "" if location.rpartition(":")[0] in _WILDCARDS else f"http://{location}"
        return f"http://{member_name(identity)}.{config.peer_domain}:{config.admin_port}"

    me = member_name(keeper.identity)
    return sorted({url(member) for member in keeper.recent_members if member_name(member) != me} - {""})


@asynccontextmanager
async def shard_keeper(
    config: MinerConfig,
    member: str,
    redis: "Redis",
    keys: RedisKeys,
    owner: ShardListener,
    platform: Platform,
    connect_kube: "Callable[[], AbstractAsyncContextManager[KubeApi]]",
    is_able: Callable[[], bool] = lambda: True,
) -> AsyncIterator[ShardLeaseManager]:
    """Build the manager of this miner's shard leases.

    Its connection is closed at the end.

    `member` is the name of the volume, `connect_kube` connects to this pod's cluster. Shards are left to other live
    miners while `is_able` returns False. Raises ConfigurationError if the API server cannot be used.
    """
    timing = timing_for_blocks(config.chain.block_seconds)

    def keeper(store: LeaseStore, group: str) -> ShardLeaseManager:
        return ShardLeaseManager(
            store, LeaseNames(group, config.shards), identity_of(config, member, platform), owner, timing,
            clock=platform.clock, wall_clock=platform.now, rng=platform.rng, is_able=is_able,
        )  # fmt: skip

    if config.lease is None:
        yield keeper(RedisLeaseStore(redis, keys.leases, call_seconds=timing.call), _EMBEDDED_GROUP)
        return
    from pocket.coordination.stores.kubernetes_leases import KubeLeaseStore  # noqa: PLC0415 - as `connect_kube`
    from pocket.kube.api_client import KubeError  # noqa: PLC0415 - as `connect_kube`

    try:
        async with connect_kube() as api:
            store = KubeLeaseStore(
                api, config.namespace, config.lease, call_seconds=timing.call,
                owner=config.lease_owner.model_dump(by_alias=True) if config.lease_owner else None,
            )  # fmt: skip
            yield keeper(store, config.lease)
    except KubeError as error:
        raise ConfigurationError(f"miner: {error}") from error
