"""Every Redis key and channel, built in one place.

Per-supplier keys carry the hash tag `{<supplier address>}`, so a Redis Cluster keeps them in one slot
and the scripts may touch them together.
"""

from dataclasses import dataclass

from pocket.errors import ConfigurationError

REPLAY_BUCKETS = 256


@dataclass(frozen=True, slots=True)
class RedisKeys:
    """Keys below the prefix of one RelayMiner."""

    prefix: str

    def __post_init__(self) -> None:
        if not self.prefix or any(c in self.prefix for c in "{}* \n"):
            raise ConfigurationError(f"Redis key prefix {self.prefix!r}: not empty, without braces, blanks or '*'")

    def _supplier(self, kind: str, supplier: str) -> str:
        return f"{self.prefix}:{kind}:{{{supplier}}}"

    def stream(self, supplier: str, session_id: str) -> str:
        """Mined relays of a session, one entry each."""
        return f"{self._supplier('relays', supplier)}:{session_id}"

    def sessions(self, supplier: str) -> str:
        """Hash: session id → canonical session header, for sessions not yet settled."""
        return self._supplier("sessions", supplier)

    def closed(self, supplier: str) -> str:
        """Hash: session id → why no relay is taken any more, with the session end height."""
        return self._supplier("closed", supplier)

    def horizon(self, supplier: str) -> str:
        """Session end height up to which no session is registered any more: there would be no time to claim it."""
        return self._supplier("horizon", supplier)

    def incarnation(self, supplier: str) -> str:
        """Marker that changes when the supplier's streams were lost."""
        return self._supplier("incarnation", supplier)

    def seals(self, supplier: str) -> str:
        """Hash: session id → seal."""
        return self._supplier("seals", supplier)

    def transactions(self, supplier: str) -> str:
        """Hash: claim or proof group → signed transaction bytes."""
        return self._supplier("transactions", supplier)

    def fence(self, supplier: str) -> str:
        """Highest epoch of an owner."""
        return self._supplier("fence", supplier)

    def mirrored(self, supplier: str) -> str:
        """Hash: session id → incarnation and stream id up to which a miner's volume holds the relays."""
        return self._supplier("mirrored", supplier)

    def costs(self, supplier: str, session_id: str) -> str:
        """Hash: transaction hash → what it was for and how many upokt of its fee are the session's."""
        return f"{self._supplier('costs', supplier)}:{session_id}"

    def consumed(self, supplier: str, session_id: str) -> str:
        """Upokt of a session's budget that served relays took."""
        return f"{self._supplier('meter', supplier)}:{session_id}"

    def replays(self, supplier: str, session_id: str, bucket: int) -> str:
        """Hash: ids of requests that were served; REPLAY_BUCKETS of a session keep each small."""
        return f"{self._supplier('replays', supplier)}:{session_id}:{bucket}"

    def spent(self, supplier: str, session_id: str) -> list[str]:
        """All that is known of what a session was charged."""
        buckets = (self.replays(supplier, session_id, bucket) for bucket in range(REPLAY_BUCKETS))
        return [self.consumed(supplier, session_id), *buckets]

    def rate(self, service_id: str, application: str, second: int) -> str:
        """Relays of an application in one second."""
        return f"{self.prefix}:rate:{service_id}:{application}:{second}"

    def simulated(self, digest: str) -> str:
        """A simulated relay that was served."""
        return f"{self.prefix}:simulated:{digest}"

    def wake(self, shard: int) -> str:
        """Stream: suppliers of a shard that have new relays."""
        return f"{self.prefix}:wake:{shard}"

    @property
    def owner(self) -> str:
        """Namespace and name of the RelayMiner that owns the prefix."""
        return f"{self.prefix}:owner"

    @property
    def leases(self) -> str:
        """Hash: Leases of the miners, where there is no Kubernetes."""
        return f"{self.prefix}:leases"

    @property
    def block(self) -> str:
        """Latest block as the miner's leader saw it."""
        return f"{self.prefix}:block"

    @property
    def cache_known(self) -> str:
        """Sorted set: records that processes asked for, by the unix second of the last time."""
        return f"{self.prefix}:cache-known"

    @property
    def cache_version(self) -> str:
        """Number of the last message on `cache_news`."""
        return f"{self.prefix}:cache-version"

    @property
    def cache_news(self) -> str:
        """Channel: what is to be forgotten."""
        return f"{self.prefix}:cache-news"

    @property
    def cached(self) -> str:
        """What the keys of all cached chain answers begin with."""
        return f"{self.prefix}:cache:"

    def cache(self, kind: str, name: str) -> str:
        """A cached chain answer."""
        return f"{self.cached}{kind}:{name}"
