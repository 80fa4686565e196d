"""HTTP clients that are alike under every version of CPython."""

from typing import Final

import aiohttp

from pocket.runtime.own_authorities import system_context

RESOLVED_SECONDS: Final = 2
"""For how long new connections use a name's addresses. aiohttp's ten seconds are several blocks of a fast chain."""


def http_session() -> aiohttp.ClientSession:
    """Return an HTTP client that trusts the system's authorities."""
    connector = aiohttp.TCPConnector(ssl=system_context(), ttl_dns_cache=RESOLVED_SECONDS)
    return aiohttp.ClientSession(connector=connector)
