"""Find the RelayMiner that owns a prefix of Redis keys.

It is the oldest of those with this prefix in this Redis.
"""

from collections.abc import Mapping
from typing import Any

from pocket_operator.controller.secrets import SecretReader
from pocket_operator.decide.object_cache import ObjectCache, ReconcileKey
from pocket_operator.decide.redis_secrets import redis_of, redis_secrets_of
from pocket_operator.decide.snapshot import SecretView

Object = dict[str, Any]


class PrefixOwners:
    """Compares RelayMiners of one prefix by the Redis that they name."""

    def __init__(self, cache: ObjectCache, secrets: SecretReader) -> None:
        self._cache = cache
        self._secrets = secrets

    async def other(self, relay_miner: Object | None, secrets: Mapping[str, SecretView | None]) -> str:
        """Return the oldest RelayMiner with the same Redis and prefix.

        The result is empty if no other one is older. The Secret of an older one is read before anything is concluded,
        since after a start of the operator none is known. Raises KubeError.
        """
        redis = redis_of(relay_miner, secrets) if relay_miner is not None else ""
        if relay_miner is None or not redis:
            return ""
        older = (other for other in self._cache.same_prefix(relay_miner) if _age(other) < _age(relay_miner))
        for other in sorted(older, key=_age):
            namespace, name = _place(other)
            wanted = [secret for secret in redis_secrets_of(other) if secret]
            # Under a key of its own, since a reconciliation of that RelayMiner reads more than this. Nothing is kept.
            reader = ReconcileKey(namespace, f"{name}/redis")
            known = await self._secrets.read(reader, wanted)
            await self._secrets.read(reader, ())
            if redis_of(other, known) == redis:
                return f"{namespace}/{name}"
        return ""


def _place(resource: Object) -> tuple[str, str]:
    return str(resource["metadata"]["namespace"]), str(resource["metadata"]["name"])


def _age(resource: Object) -> tuple[str, str]:
    """Return a key that sorts resources by age."""
    return str(resource["metadata"].get("creationTimestamp", "")), str(resource["metadata"].get("uid", ""))
