"""HTTP clients that are alike under every version of CPython."""

import aiohttp

from pocket.runtime.own_authorities import system_context


def http_session() -> aiohttp.ClientSession:
    """Return an HTTP client that trusts the system's authorities."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=system_context()))
