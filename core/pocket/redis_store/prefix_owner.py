"""Record which RelayMiner owns a key prefix: two that share one would mix their sessions."""

from typing import TYPE_CHECKING

from pocket.errors import ConfigurationError
from pocket.redis_store.redis_keys import RedisKeys

if TYPE_CHECKING:
    from redis.asyncio import Redis


class PrefixInUse(ConfigurationError):
    """Another RelayMiner owns the key prefix in this Redis."""


async def claim_prefix(redis: "Redis", keys: RedisKeys, owner: str) -> None:
    """Record `owner` (namespace/name of a RelayMiner) for the prefix unless another owner is recorded.

    The record has no lifetime: that its owner is silent is no evidence that it is gone.

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
