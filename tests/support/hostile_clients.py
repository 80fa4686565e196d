"""What tests of hostile clients share: bare connections to a relayer."""

import asyncio
from urllib.parse import urlsplit

from callers import http1
from pocket_relayer.transports.client_timeouts import ClientTimeouts
from pocket_relayer.transports.http2_memory import CONNECTION_BYTES

MIB = 1024 * 1024
LARGE = {"maxBodyBytes": 10 * MIB}
SHORT_TIMEOUTS = ClientTimeouts(idle_seconds=30.0, read_seconds=0.3, write_seconds=0.3, bytes_per_second=1e9)


async def dial(relayer, **options):
    parts = urlsplit(relayer.url)
    return await asyncio.open_connection(parts.hostname, parts.port, **options)


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nothing tells what a server forgot
            await asyncio.sleep(0.01)


def post(length, headers=b""):
    return b"POST / HTTP/1.1\r\nHost: relayer\r\nContent-Length: %d\r\n%s\r\n" % (length, headers)


async def served(relayer, **changes):
    return (await http1(relayer.url, relayer.request(**changes).encode())).code == 200


def held(relayer):
    """Return the memory of requests and answers, without that of open connections."""
    return relayer.memory.used - relayer.connections.occupied - CONNECTION_BYTES * len(relayer.http2.connections)
