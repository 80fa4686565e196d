"""One node whose RPC answers anything but a JSON-RPC answer: the next node is asked at once."""

import asyncio
import contextlib
import gzip
import json

import aiohttp
import pytest

from pocket.chain.comet import CometClient
from pocket.chain.failover import NodeAddress
from pocket.errors import ChainUnavailable

STATUS = {
    "node_info": {"network": "pocket"},
    "sync_info": {
        "latest_block_height": "12", "latest_block_hash": "AB" * 32, "latest_block_time": "2026-01-01T00:00:00Z",
    },
}  # fmt: skip
GOOD = json.dumps({"jsonrpc": "2.0", "id": 1, "result": STATUS}).encode()
RESULTS = json.dumps({"result": {"finalize_block_events": []}}).encode()


def answer(body, head="", status="200 OK", length=None):
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\n{head}\r\n".encode() + body


PACKED = "Content-Encoding: gzip\r\n"
BROKEN = {
    "nothing": b"",
    "an empty body": answer(b""),
    "a cut body": answer(GOOD[:40], length=len(GOOD)),
    "truncated JSON": answer(GOOD[:40]),
    "a page": answer(b"<html>502</html>", "Content-Type: text/html\r\n"),
    "null": answer(b"null"),
    "a null result": answer(b'{"result": null}'),
    "a string for an error": answer(b'{"error": "x"}'),
    "cut gzip": answer(gzip.compress(GOOD)[:-12], PACKED),
    "no gzip": answer(GOOD, PACKED),
    "bytes that are no text": answer(b"\xff" * 40),
    "chunks without an end": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "a chunk without a size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "no HTTP": b"\x15\x03\x01\x00\x02\x02\x28",
    "a header that is none": b"HTTP/1.1 200 OK\r\n\x00: x\r\n\r\n",
    "a redirection to itself": answer(b"", "Location: /\r\n", "307 Temporary Redirect"),
    "a redirection to nowhere": answer(b"", "Location: http://\r\n", "307 Temporary Redirect"),
    "too many requests": answer(b"slow down", status="429 Too Many Requests"),
    "a failure": answer(b"upstream", status="503 Service Unavailable"),
}


@contextlib.asynccontextmanager
async def serving(make):
    async def handle(reader, writer):
        with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readexactly(1)
            if head == b"\x16":  # the beginning of TLS
                writer.write(answer(b"", status="400 Bad Request"))
                return
            head += await reader.readuntil(b"\r\n\r\n")
            size = next(int(row.split(b":")[1]) for row in head.split(b"\r\n") if row.lower().startswith(b"content-l"))
            writer.write(make(await reader.readexactly(size)))
            await writer.drain()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


def right(body):
    return answer(RESULTS if b"block_results" in body else GOOD)


@pytest.mark.parametrize("kind", [*BROKEN, "TLS to a port without it", "a name that does not resolve"])
async def test_the_next_node_is_asked_whatever_one_answers(kind):
    async with serving(lambda _: BROKEN.get(kind, GOOD)) as broken, serving(right) as good:
        bad = {
            "TLS to a port without it": broken.replace("http:", "https:"),
            "a name that does not resolve": "http://nowhere.invalid",
        }.get(kind, broken)
        async with aiohttp.ClientSession() as http:
            nodes = [NodeAddress.parse("127.0.0.1:1", url) for url in (bad, good)]
            assert (await CometClient(nodes, http, chain_id="pocket").block()).height == 12
            assert await CometClient(nodes, http).end_events(12, lambda _: True) == ()
            alone = CometClient(nodes[:1], http)
            with pytest.raises(ChainUnavailable):
                await alone.block()
            with pytest.raises(ChainUnavailable):
                await alone.end_events(12, lambda _: True)
