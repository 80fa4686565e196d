"""The connections of one worker: how many there may be, and which one goes when there are too many."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import cast

from pocket.api.relayminer import ConnectionLimits
from pocket_relayer import relayer_metrics
from pocket_relayer.memory_budget import ConnectionMemoryBudget, MemoryBudget

_Unproven = OrderedDict["Connection", None]


class Connection:
    """An open connection. It is proven once a relay of it was answered."""

    __slots__ = ("_connections", "abort", "memory", "proven")

    def __init__(self, connections: "Connections", memory: ConnectionMemoryBudget, abort: Callable[[], None]) -> None:
        self._connections = connections
        self.memory = memory
        self.abort = abort
        self.proven = False

    def prove(self) -> None:
        """A relay of this connection was answered: no newcomer takes its place."""
        if not self.proven:
            self.proven = True
            self._connections.proved(self)

    def lost(self) -> None:
        """The connection ended."""
        self._connections.lost(self)


class Connections:
    """Limits of one worker. A newcomer takes the place of the oldest connection without a proven relay.

    So strangers who open connections and keep them push each other out, and never whoever sends relays.
    """

    def __init__(self, limits: ConnectionLimits, memory: MemoryBudget) -> None:
        self._limits = limits
        self.memory = memory
        self._open: dict[str, int] = {}
        self._number = 0
        self._unproven: _Unproven = OrderedDict()
        self._unproven_of: dict[str, _Unproven] = {}

    @property
    def open(self) -> int:
        """Number of open connections."""
        return self._number

    def admit(self, transport: asyncio.BaseTransport) -> Connection | None:
        """Return the new connection; None, and an aborted transport, where there is no place."""
        address = address_of(transport)
        abort = cast("asyncio.Transport", transport).abort
        limits = self._limits
        full = self._open.get(address, 0) >= limits.per_address and not self._push_out(self._unproven_of.get(address))
        full = full or (self._number >= limits.total and not self._push_out(self._unproven))
        if full:
            relayer_metrics.CLOSED.labels("refused").inc()
            abort()
            return None
        connection = Connection(self, self.memory.connection(address), abort)
        self._number += 1
        self._open[address] = self._open.get(address, 0) + 1
        self._unproven[connection] = None
        self._unproven_of.setdefault(address, OrderedDict())[connection] = None
        return connection

    def _push_out(self, unproven: _Unproven | None) -> bool:
        if not unproven:
            return False
        oldest = next(iter(unproven))
        relayer_metrics.CLOSED.labels("too_many").inc()
        oldest.abort()
        self.lost(oldest)  # now: its place is taken before the event loop tells
        return True

    def proved(self, connection: Connection) -> None:
        """Keep a connection's place."""
        if self._unproven.pop(connection, False) is None:
            address = connection.memory.address
            mine = self._unproven_of[address]
            del mine[connection]
            if not mine:
                del self._unproven_of[address]

    def lost(self, connection: Connection) -> None:
        """Free a connection's place, once."""
        if connection.abort is _gone:
            return
        connection.abort = _gone
        self.proved(connection)
        address = connection.memory.address
        self._number -= 1
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]


def _gone() -> None:
    """Stand in for the abort of a connection that is lost."""


def address_of(transport: asyncio.BaseTransport) -> str:
    """Return the client's address, of IPv6 the network of 64 bits that one client has; empty where it is not known."""
    peer = transport.get_extra_info("peername")
    if not isinstance(peer, tuple) or not peer:
        return ""
    address = str(peer[0])
    if ":" not in address or address.startswith("::ffff:"):
        return address.removeprefix("::ffff:")
    return ":".join(address.partition("%")[0].split("::")[0].split(":")[:4])
