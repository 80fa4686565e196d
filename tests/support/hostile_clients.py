"""What tests of hostile clients share: bare connections to a relayer."""

import asyncio
from urllib.parse import urlsplit

MIB = 1024 * 1024


async def dial(relayer, **options):
    parts = urlsplit(relayer.url)
    return await asyncio.open_connection(parts.hostname, parts.port, **options)


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nothing tells what a server forgot
            await asyncio.sleep(0.01)


def post(length, headers=b""):
    return b"POST / HTTP/1.1\r\nHost: relayer\r\nContent-Length: %d\r\n%s\r\n" % (length, headers)
