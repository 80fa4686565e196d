"""Find the hash slot of a command's key, and the primary that serves it.

Source: the specification of Redis Cluster.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from redis.crc import key_slot

from pocket.redis_store.node_addresses import Address, format_address, format_addresses, parse_addresses

SLOTS: Final = 16384
_SCHEMES: Final = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
_PORT: Final = 6379
_WITHOUT_KEY: Final = frozenset({
    "ASKING", "AUTH", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "DBSIZE", "ECHO", "FLUSHALL", "INFO", "PING", "PUBLISH",
    "ROLE", "SCAN", "SCRIPT", "TIME", "WAIT",
})  # fmt: skip
_SCRIPTS: Final = frozenset({"EVAL", "EVALSHA"})


@dataclass(frozen=True, slots=True, repr=False)
class ClusterUrl:
    """A parsed `redis+cluster://[user:password@]host[:port],host[:port]`.

    The addresses are asked for the others. rediss+cluster:// uses TLS.
    """

    scheme: str
    credentials: str
    seeds: tuple[Address, ...]

    @classmethod
    def parse(cls, url: str) -> "ClusterUrl | None":
        """Return the parts of a Cluster URL, None for a URL of another kind.

        Raises ValueError for an invalid one.
        """
        parts = urlsplit(url)
        scheme = _SCHEMES.get(parts.scheme)
        if scheme is None:
            return None
        if parts.path not in ("", "/", "/0") or parts.query or parts.fragment:
            raise ValueError("a Cluster has one database, and its URL no parameters")
        credentials, _, hosts = parts.netloc.rpartition("@")
        return cls(scheme, credentials, parse_addresses(hosts, _PORT))

    def url_of(self, address: Address) -> str:
        """Return the URL of one server."""
        at = f"{self.credentials}@" if self.credentials else ""
        return f"{self.scheme}://{at}{format_address(address)}/0"

    @property
    def redacted(self) -> str:
        """The URL without credentials."""
        return f"{self.scheme}+cluster://{format_addresses(self.seeds)}"


def _name(part: Any) -> str:
    return part.decode("latin-1") if isinstance(part, bytes) else str(part)


def slot_of(command: Sequence[Any]) -> int | None:
    """Return the slot of a command's first key, None for a command without keys.

    The server verifies that all other keys are in the same slot.
    """
    words = _name(command[0]).upper().split()
    name = words[0]
    if name in _WITHOUT_KEY:
        return None
    if name in _SCRIPTS:
        return _slot(command[3]) if int(command[2]) else None
    if name == "XREAD":
        at = next(number for number, part in enumerate(command) if _name(part).upper() == "STREAMS")
        return _slot(command[at + 1])
    return _slot(command[1])


def _slot(key: Any) -> int:
    return key_slot(key if isinstance(key, bytes) else str(key).encode("utf-8", "surrogateescape"))


class SlotMap:
    """Which primary serves each slot, as one node of the Cluster reported it."""

    def __init__(self, ranges: Mapping[tuple[int, int], Address]) -> None:
        self._by_slot: list[Address | None] = [None] * SLOTS
        for (first, last), address in ranges.items():
            self._by_slot[first : last + 1] = [address] * (last - first + 1)
        self.primaries = tuple(dict.fromkeys(ranges.values()))

    @classmethod
    def parse(cls, reply: Sequence[Any], source: Address) -> "SlotMap":
        """Parse an answer to CLUSTER SLOTS that `source` gave.

        A node that does not know its own address is reachable where it was asked. Raises ValueError for an answer
        that cannot be read.
        """
        ranges: dict[tuple[int, int], Address] = {}
        try:
            for first, last, primary, *_ in reply:
                if not 0 <= int(first) <= int(last) < SLOTS:
                    raise ValueError(f"slots {first} to {last}")
                host = _name(primary[0]) if primary[0] else ""
                ranges[int(first), int(last)] = (source[0] if host in ("", "?") else host, int(primary[1]))
        except (TypeError, IndexError) as error:
            raise ValueError("CLUSTER SLOTS has another form") from error
        return cls(ranges)

    def primary(self, slot: int) -> Address | None:
        """Return the primary of a slot, None while it has none."""
        return self._by_slot[slot]

    def move(self, slot: int, address: Address) -> None:
        """Record that a slot was moved."""
        self._by_slot[slot] = address
        if address not in self.primaries:
            self.primaries = (*self.primaries, address)

    @property
    def complete(self) -> bool:
        """Return True if every slot has a primary."""
        return None not in self._by_slot
