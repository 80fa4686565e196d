"""HTTP clients that are alike under every version of CPython."""

import contextlib
import socket
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import aiohttp

from pocket.runtime.own_authorities import system_context

_RESOLVED_SECONDS: Final = 2
"""For how long new connections use a name's addresses. aiohttp's ten seconds are several blocks of a fast chain."""
_SOCKET_OPTIONS: Final = (
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 10),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 5),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", 2),
)
"""Not every system has each of them."""


def keepalive_socket(address: tuple[Any, ...]) -> socket.socket:
    """Return a socket for an address, with keep-alive probes.

    The kernel gives up an unused connection 20 seconds after its other end is gone. Otherwise each kept connection to
    a machine that is gone takes a request, which waits for its deadline.
    """
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    for level, name, value in _SOCKET_OPTIONS:
        with contextlib.suppress(OSError):
            if hasattr(socket, name):
                made.setsockopt(level, getattr(socket, name), value)
    return made


CONNECTOR_OPTIONS: Final[Mapping[str, Any]] = MappingProxyType(
    {"ttl_dns_cache": _RESOLVED_SECONDS, "socket_factory": keepalive_socket}
)
"""Options of each aiohttp.TCPConnector to a name that may move, or whose machine may vanish."""


def http_session() -> aiohttp.ClientSession:
    """Return an HTTP client that trusts the system's authorities."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=system_context(), **CONNECTOR_OPTIONS))
