"""Record which RelayMiner owns a key prefix.

Two that share one would mix their sessions.
"""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.errors import ConfigurationError
from pocket.redis_store.cluster import ClusterClient
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.store_errors import RedisUnavailable

if TYPE_CHECKING:
    from redis.asyncio import Redis

_LOG: FilteringBoundLogger = structlog.get_logger()
_RETRY_SECONDS: Final = 2.0


class PrefixInUse(ConfigurationError):
    """Another RelayMiner owns the key prefix in this Redis."""


async def claim_prefix(redis: "Redis", keys: RedisKeys, owner: str) -> None:
    """Record the owner of the prefix unless another one is recorded.

    `owner` is namespace/name of a RelayMiner. The record has no lifetime: that its owner is silent is no evidence that
    it is gone.

    Raises PrefixInUse, RedisUnavailable.
    """
    value = await redis.get(keys.owner)
    if value is None:  # otherwise nothing is written, which a full Redis would refuse
        await redis.set(keys.owner, owner, nx=True)
        value = await redis.get(keys.owner)
    recorded = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")
    if recorded and recorded != owner:
        raise PrefixInUse(
            f"Redis key prefix {keys.prefix} belongs to RelayMiner {recorded}, not to {owner}: set another "
            f"spec.prefix. If {recorded} is gone for good: redis-cli DEL {keys.owner}"
        )


@dataclass(slots=True)
class PrefixOwner:
    """Claims the prefix for a RelayMiner (`owner` is namespace/name)."""

    redis: "Redis"
    keys: RedisKeys
    owner: str
    claimed: bool = False

    async def claim(self) -> None:
        """Claim the prefix, once.

        In a Cluster the primary of this one record may be away while the others serve: then `run` claims it later.

        Raises PrefixInUse, and RedisUnavailable.
        """
        try:
            await claim_prefix(self.redis, self.keys, self.owner)
        except RedisUnavailable as error:
            if not isinstance(self.redis, ClusterClient) or not error.trouble.is_transient:
                raise
            _LOG.warning("starting without the record of the prefix's owner, its primary is away", error=error)
            return
        self.claimed = True

    async def run(self, pause_seconds: float = _RETRY_SECONDS) -> None:
        """Claim what could not be claimed at the start.

        Raises PrefixInUse.
        """
        while not self.claimed:
            await asyncio.sleep(pause_seconds)
            try:
                await claim_prefix(self.redis, self.keys, self.owner)
            except RedisUnavailable:
                continue
            self.claimed = True
