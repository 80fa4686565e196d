"""Limit the connections of one worker."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Final, cast

from pocket.api.relayminer import ConnectionLimits
from pocket_relayer import relayer_metrics
from pocket_relayer.memory_budget import ConnectionMemoryBudget, MemoryBudget
from pocket_relayer.token_bucket import TokenBucket

_INTERFACE_BITS: Final = 64
_Untrusted = OrderedDict["Connection", None]


class Connection:
    """An open connection. It is trusted once one of its relays was served."""

    __slots__ = ("_connections", "abort", "first_requests", "memory", "trusted")

    def __init__(self, connections: "Connections", memory: ConnectionMemoryBudget, abort: Callable[[], None]) -> None:
        self._connections = connections
        self.memory = memory
        self.abort = abort
        self.trusted = False
        self.first_requests: TokenBucket | None = None
        """Limits the requests before the first served relay."""

    def trust(self) -> None:
        """Keep this connection when there are too many: it served a relay."""
        if not self.trusted:
            self.trusted = True
            self._connections.on_trusted(self)

    def linger(self) -> None:
        """Remember that this connection had its last response and only discards what still arrives."""
        self._connections.lingering.add(self)

    def lost(self) -> None:
        """Free the place of this connection."""
        self._connections.lost(self)


class Connections:
    """The connections of one worker and their limits.

    A new connection replaces the oldest one that is not trusted.

    So clients that open connections without sending relays replace each other, and never those that send relays.
    """

    def __init__(self, limits: ConnectionLimits, memory: MemoryBudget) -> None:
        self._limits = limits
        self.memory = memory
        self._open: dict[str, int] = {}
        self._number = 0
        self._untrusted: _Untrusted = OrderedDict()
        self._untrusted_of: dict[str, _Untrusted] = {}
        self.lingering: set[Connection] = set()

    @property
    def open(self) -> int:
        """Return the number of open connections."""
        return self._number

    def admit(self, transport: asyncio.BaseTransport) -> Connection | None:
        """Return the new connection, or None if there is no place.

        Without a place the transport is aborted.
        """
        address = address_of(transport)
        abort = cast("asyncio.Transport", transport).abort
        limits = self._limits
        full = self._open.get(address, 0) >= limits.per_address and not self._evict_oldest(
            self._untrusted_of.get(address)
        )
        full = full or (self._number >= limits.total and not self._evict_oldest(self._untrusted))
        if full:
            relayer_metrics.CLOSED.labels("refused").inc()
            abort()
            return None
        connection = Connection(self, self.memory.connection(address), abort)
        self._number += 1
        self._open[address] = self._open.get(address, 0) + 1
        self._untrusted[connection] = None
        self._untrusted_of.setdefault(address, OrderedDict())[connection] = None
        return connection

    def _evict_oldest(self, untrusted: _Untrusted | None) -> bool:
        if not untrusted:
            return False
        oldest = next(iter(untrusted))
        relayer_metrics.CLOSED.labels("too_many").inc()
        oldest.abort()
        self.lost(oldest)  # at once: its place is used before the event loop reports the loss
        return True

    def abort_lingering(self) -> None:
        """Abort the connections that had their last response, when the worker ends."""
        for connection in list(self.lingering):
            connection.abort()

    def on_trusted(self, connection: Connection) -> None:
        """Keep a connection's place."""
        if self._untrusted.pop(connection, False) is None:
            address = connection.memory.address
            mine = self._untrusted_of[address]
            del mine[connection]
            if not mine:
                del self._untrusted_of[address]

    def lost(self, connection: Connection) -> None:
        """Free a connection's place, once."""
        self.lingering.discard(connection)
        if connection.abort is _gone:
            return
        connection.abort = _gone
        self.on_trusted(connection)
        address = connection.memory.address
        self._number -= 1
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]


def _gone() -> None:
    """Do nothing, in place of the abort of a lost connection."""


def address_of(transport: asyncio.BaseTransport) -> str:
    """Return the client's address, empty if unknown.

    Of IPv6 it is the network of 64 bits that one client has.
    """
    peer = transport.get_extra_info("peername")
    if not isinstance(peer, tuple) or not peer:
        return ""
    text = str(peer[0])
    if ":" not in text:
        return text
    address = IPv6Address(text)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) >> _INTERFACE_BITS << _INTERFACE_BITS))
