"""Every Redis key and channel, built in one place.

Per-supplier keys carry the hash tag `{<supplier address>}`, so a Redis Cluster keeps them in one slot and scripts may
use them together. The notifications of all shards carry the tag `{<prefix>}`, since one command reads several of them.
Every other key has a slot of its own.
"""

from dataclasses import dataclass

from pocket.errors import ConfigurationError

REPLAY_BUCKETS = 256


@dataclass(frozen=True, slots=True)
class RedisKeys:
    """Keys below the prefix of one RelayMiner."""

    prefix: str

    def __post_init__(self) -> None:
        if not self.prefix or any(c in self.prefix for c in "{}*?[]\\ \n"):
            raise ConfigurationError(
                f"Redis key prefix {self.prefix!r}: not empty, without blanks, braces or any of *?[]\\"
            )

    def _supplier(self, kind: str, supplier: str) -> str:
        return f"{self.prefix}:{kind}:{{{supplier}}}"

    def stream(self, supplier: str, session_id: str) -> str:
        """Return the stream of a session's mined relays, one entry each."""
        return f"{self._supplier('relays', supplier)}:{session_id}"

    def sessions(self, supplier: str) -> str:
        """Return the hash of session id → session header, for sessions not settled yet."""
        return self._supplier("sessions", supplier)

    def closed(self, supplier: str) -> str:
        """Return the hash of session id → why the session is closed, with its end height."""
        return self._supplier("closed", supplier)

    def cutoff(self, supplier: str) -> str:
        """Return the key of the session end up to which no session is registered.

        There would be no time left to claim such a session.
        """
        return self._supplier("cutoff", supplier)

    def incarnation(self, supplier: str) -> str:
        """Return the marker that changes when the supplier's streams are lost."""
        return self._supplier("incarnation", supplier)

    def seals(self, supplier: str) -> str:
        """Return the hash of session id → seal."""
        return self._supplier("seals", supplier)

    def transactions(self, supplier: str) -> str:
        """Return the hash of claim or proof group → signed transaction bytes."""
        return self._supplier("transactions", supplier)

    def fence(self, supplier: str) -> str:
        """Return the key of the highest epoch of an owner."""
        return self._supplier("fence", supplier)

    def replicated(self, supplier: str) -> str:
        """Return the hash of the positions up to which a volume has the relays.

        Session id → `origin/id`.
        """
        return self._supplier("replicated", supplier)

    def costs(self, supplier: str, session_id: str) -> str:
        """Return the hash of a session's fees.

        Transaction hash → its kind and the session's share of its fee, upokt.
        """
        return f"{self._supplier('costs', supplier)}:{session_id}"

    def consumed(self, supplier: str, session_id: str) -> str:
        """Return the key of the upokt of a session's budget that served relays consumed."""
        return f"{self._supplier('meter', supplier)}:{session_id}"

    def replays(self, supplier: str, session_id: str, bucket: int) -> str:
        """Return a hash of ids of served requests.

        REPLAY_BUCKETS per session keep each small.
        """
        return f"{self._supplier('replays', supplier)}:{session_id}:{bucket}"

    def spent(self, supplier: str, session_id: str) -> list[str]:
        """Return all keys about what a session was charged."""
        buckets = (self.replays(supplier, session_id, bucket) for bucket in range(REPLAY_BUCKETS))
        return [self.consumed(supplier, session_id), *buckets]

    def rate(self, service_id: str, application: str, second: int) -> str:
        """Return the counter of an application's relays in one second."""
        return f"{self.prefix}:rate:{service_id}:{application}:{second}"

    def simulated(self, digest: str) -> str:
        """Return the key of a simulated relay that was served."""
        return f"{self.prefix}:simulated:{digest}"

    def notifications(self, shard: int) -> str:
        """Return the stream of suppliers of a shard that have new relays."""
        return f"{self.prefix}:notifications:{{{self.prefix}}}:{shard}"

    @property
    def owner(self) -> str:
        """Namespace and name of the RelayMiner that owns the prefix."""
        return f"{self.prefix}:owner"

    @property
    def leases(self) -> str:
        """Return the hash of the miners' Leases, used without Kubernetes."""
        return f"{self.prefix}:leases"

    @property
    def block(self) -> str:
        """Return the key of the latest block as the miners' leader saw it."""
        return f"{self.prefix}:block"

    @property
    def blocks(self) -> str:
        """Return the channel of new blocks, as the key of the latest one holds it."""
        return f"{self.prefix}:blocks"

    @property
    def cache_known(self) -> str:
        """Return the sorted set of the records that processes read.

        The score is the unix second of the last read.
        """
        return f"{self.prefix}:cache-known"

    @property
    def cache_version(self) -> str:
        """Return the key of the number of the last message on `cache_invalidations`."""
        return f"{self.prefix}:cache-version"

    @property
    def cache_invalidations(self) -> str:
        """Return the channel of what is to be evicted."""
        return f"{self.prefix}:cache-invalidations"

    @property
    def cached(self) -> str:
        """Return the prefix of all cached chain answers."""
        return f"{self.prefix}:cache:"

    def cache(self, kind: str, name: str) -> str:
        """Return the key of one cached chain answer."""
        return f"{self.cached}{kind}:{name}"
