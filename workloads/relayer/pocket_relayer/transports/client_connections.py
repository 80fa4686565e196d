"""Limit the connections of one worker."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from contextlib import suppress
from ipaddress import IPv6Address
from typing import Final, Protocol, cast

from cachetools import LRUCache

from pocket.api.relayminer import ConnectionLimits
from pocket_relayer import relayer_metrics
from pocket_relayer.limits.memory_budget import ConnectionMemoryBudget, MemoryBudget, overloaded
from pocket_relayer.limits.rejection import Rejected
from pocket_relayer.limits.token_bucket import TokenBucket

CONNECTION_BYTES: Final = 4 * 1024
"""Memory of a connection without a request."""
_OCCUPIED_SHARE: Final = 0.5
"""Share of the memory that connections themselves may occupy. The rest is left for what they send and receive."""
_INTERFACE_BITS: Final = 64
_SEARCH_SECONDS: Final = 1.0  # between two searches for a trusted connection that served nothing for long
_SEARCHES: Final = 1024
_UNSERVED: Final = 512
"""Requests in a row of a connection that served relays, none of them served, before its requests wait for turns."""
_DRAIN_POLL_SECONDS: Final = 0.05
_Untrusted = OrderedDict["Connection", None]


class Connection:
    """An open connection. It is trusted once one of its relays was served."""

    __slots__ = ("_connections", "_own", "_unserved", "abort", "first_requests", "memory", "served", "trusted")

    def __init__(self, connections: "Connections", memory: ConnectionMemoryBudget, abort: Callable[[], None]) -> None:
        self._connections = connections
        self.memory = memory
        self.abort = abort
        self.trusted = False
        self.served = False
        """True if it served a relay since the last search for connections that do not."""
        self.first_requests: TokenBucket | None = None
        """Limits the requests while the connection is not favoured."""
        self._unserved = 0
        self._own = memory.reserve()

    def occupy(self, size: int) -> None:
        """Count `size` bytes for the connection itself until it is lost.

        Raises Rejected without room for them.
        """
        more = size - self._own.size
        if more > 0:
            self._connections.make_room(self, more)
            self._own.acquire(more)
            self._connections.occupied += more

    def give_back(self) -> int:
        """Release what the connection itself occupies, and return its size."""
        size = self._own.size
        self._own.close()
        return size

    def begin_request(self) -> None:
        """Note a request, which may not be served."""
        self._unserved += 1

    @property
    def favoured(self) -> bool:
        """Return True if a relay was served and not too many others followed.

        Others are requests that were not served.
        """
        return self.trusted and self._unserved <= _UNSERVED

    def trust(self) -> None:
        """Keep this connection when there are too many: it served a relay.

        One that is lost keeps no place.
        """
        self.served = True
        self._unserved = 0
        if not self.trusted and self.abort is not _gone:
            self.trusted = True
            self._connections.on_trusted(self)

    def linger(self) -> None:
        """Remember that this connection had its last response.

        It only discards what still arrives.
        """
        self._connections.lingering.add(self)

    def lost(self) -> None:
        """Free the place of this connection."""
        self._connections.lost(self)


class Connections:
    """The connections of one worker and their limits.

    A new connection replaces the oldest one that is not trusted. If all are trusted, it replaces one that served no
    relay for `idle_seconds`.

    So clients that open connections without sending relays replace each other, and never those that send relays.
    """

    def __init__(
        self, limits: ConnectionLimits, memory: MemoryBudget, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits = limits
        self._clock = clock
        self.memory = memory
        self.occupied = 0
        """Bytes of the memory that the connections themselves occupy, except those of HTTP/2."""
        self._open: dict[str, int] = {}
        self._number = 0
        self._untrusted: _Untrusted = OrderedDict()
        self._untrusted_of: dict[str, _Untrusted] = {}
        self._trusted: OrderedDict[Connection, float] = OrderedDict()
        """Trusted connections, and since when each is not known to have served a relay. The oldest time comes first."""
        self._next_search: LRUCache[str, float] = LRUCache(_SEARCHES)
        """Time by address, empty for all, before which no connection is searched again."""
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
        full = self._open.get(address, 0) >= limits.per_address and not (
            self._evict_oldest(self._untrusted_of.get(address)) or self._evict_unused(address)
        )
        full = full or (
            self._number >= limits.total and not (self._evict_oldest(self._untrusted) or self._evict_unused())
        )
        if full:
            relayer_metrics.CLOSED.labels("refused").inc()
            abort()
            return None
        connection = Connection(self, self.memory.connection(address), abort)
        self._number += 1
        self._open[address] = self._open.get(address, 0) + 1
        self._untrusted[connection] = None
        self._untrusted_of.setdefault(address, OrderedDict())[connection] = None
        try:
            connection.occupy(CONNECTION_BYTES)
        except Rejected:
            relayer_metrics.CLOSED.labels("refused").inc()
            abort()
            self.lost(connection)
            return None
        return connection

    def make_room(self, connection: Connection, size: int) -> None:
        """Replace the oldest untrusted connections until one may occupy `size` more bytes.

        Raises Rejected without room, and for a connection that is lost.
        """
        limit = self.memory.limit * _OCCUPIED_SHARE
        while connection.abort is not _gone and self.occupied + size > limit:
            if not self._evict_oldest(self._untrusted, connection):
                raise overloaded()
        if connection.abort is _gone:
            raise overloaded()

    def _evict_oldest(self, untrusted: _Untrusted | None, kept: Connection | None = None) -> bool:
        oldest = next((one for one in untrusted or () if one is not kept), None)
        if oldest is None:
            return False
        self._evict(oldest)
        return True

    def _evict_unused(self, address: str | None = None) -> bool:
        """Evict a trusted connection that served nothing for a long time.

        It is of one address if that is given.
        """
        now, scope = self._clock(), address or ""
        if now < self._next_search.get(scope, now):
            return False
        for connection, since in list(self._trusted.items()):
            if address is not None and connection.memory.address != address:
                continue
            if connection.served:
                connection.served = False
                self._trusted[connection] = now
                self._trusted.move_to_end(connection)
            elif now - since >= self._limits.idle_seconds:
                self._evict(connection)
                return True
            elif address is None:
                break
        self._next_search[scope] = now + _SEARCH_SECONDS
        return False

    def _evict(self, connection: Connection) -> None:
        relayer_metrics.CLOSED.labels("too_many").inc()
        connection.abort()
        self.lost(connection)  # at once: its place is used before the event loop reports the loss

    def abort_lingering(self) -> None:
        """Abort the connections that had their last response, when the worker ends."""
        for connection in list(self.lingering):
            connection.abort()

    def on_trusted(self, connection: Connection) -> None:
        """Keep a connection's place."""
        self._forget_untrusted(connection)
        self._trusted[connection] = self._clock()

    def _forget_untrusted(self, connection: Connection) -> None:
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
        self._forget_untrusted(connection)
        self._trusted.pop(connection, None)
        self.occupied -= connection.give_back()
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


class Serving(Protocol):
    """The protocol of a connection."""

    @property
    def busy(self) -> bool:
        """Return True while a request is being read or served."""


async def until_idle(connections: Collection[Serving], seconds: float) -> None:
    """Wait until none of the connections serves a request, at most `seconds`.

    The collection may change meanwhile.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while any(connection.busy for connection in connections):  # noqa: ASYNC110 - rare and short
                await asyncio.sleep(_DRAIN_POLL_SECONDS)
