"""Clients that send what is no HTTP, or more after a refused upgrade."""

import asyncio
import contextlib
import gc
import json
import tracemalloc

import pytest

from hostile_clients import MIB, dial, held, post, until
from metric_growth import Growth
from relays import relaying

pytestmark = pytest.mark.redis

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: relayer\r\nTarget-Service-Id: none\r\nConnection: Upgrade\r\nUpgrade: %s\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
CONNECT = b"CONNECT relayer:80 HTTP/1.1\r\nHost: relayer:80\r\n\r\n"
UNREADABLE = {
    "garbage": (b"", b"\0" * 200_000),
    "frames after a refused WebSocket": (UPGRADE % b"websocket", (bytes([0x02, 0xFE, 0xFF, 0xFF]) + bytes(65_539)) * 3),
    "garbage after an unknown upgrade": (UPGRADE % b"tcp", b"\0" * 200_000),
    "bytes after CONNECT": (CONNECT, b"\0" * 200_000),
    "garbage after a relay": (b"GET /health HTTP/1.1\r\nHost: relayer\r\n\r\n", b"\0" * 200_000),
}


@pytest.mark.parametrize(("head", "rest"), UNREADABLE.values(), ids=UNREADABLE)
async def test_unreadable_data_leaves_nothing_behind_though_no_garbage_is_collected(redis, tmp_path, head, rest):
    async with relaying(redis, tmp_path) as relayer:

        async def send_unreadable():
            reader, writer = await dial(relayer)
            writer.write(head + rest)
            writer.write(rest)
            with contextlib.suppress(ConnectionError):
                await asyncio.wait_for(reader.read(), 10)
            writer.transport.abort()
            await until(lambda: relayer.connections.open == 0)

        await send_unreadable()
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(40):
                await send_unreadable()
            assert tracemalloc.get_traced_memory()[0] - before < 4 * MIB
        finally:
            tracemalloc.stop()
            gc.enable()
        assert held(relayer) == 0


@pytest.mark.parametrize("head", [UPGRADE % b"websocket", CONNECT], ids=["WebSocket", "CONNECT"])
async def test_what_follows_a_refused_upgrade_is_no_request(redis, tmp_path, head):
    async with relaying(redis, tmp_path) as relayer:
        reader, writer = await dial(relayer)
        body = relayer.request().encode()
        writer.write(head + post(len(body)) + body)
        answers = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        assert answers.count(b"HTTP/1.1 ") == 1
        assert b"Connection: close" in answers
        assert not relayer.backend.requests


TARGETS = [
    b"OPTIONS *", b"GET /%0a", b"GET /ready/%00%0d%0a", b"GET /%zz%00%ff", b"POST //[", b"GET http://other/ready",
    b"GET http://[", b"GET relayer:80", b"GET *", b"CONNECT relayer:80", b"GET /\xff", b"GET /a\0b", b"GET \\ready",
    b"PRI *", b"GET /ready#x",
]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS, ids=repr)
async def test_every_odd_target_is_refused_with_a_code_and_counted(redis, tmp_path, captured_logs, target):
    async with relaying(redis, tmp_path) as relayer:
        growth = Growth()
        reader, writer = await dial(relayer)
        writer.write(target + b" HTTP/1.1\r\nHost: relayer\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        head, _, body = (await asyncio.wait_for(reader.read(), 10)).partition(b"\r\n\r\n")
        writer.close()
    assert head.split()[1] in (b"400", b"404", b"405")
    found = json.loads(body)
    assert found["code"] in ("invalid_request", "unknown_service", "method_not_allowed")
    assert len(found["request_id"]) == 16
    if found["code"] != "unknown_service":
        assert (
            growth.of("pocket_relayer_relays_rejected_total", service="", transport="http", reason=found["code"]) >= 1
        )
    assert [event for event in captured_logs if event["log_level"] in ("error", "critical")] == []


async def test_bytes_before_a_whole_head_are_counted_and_given_back(redis, tmp_path):
    async with relaying(redis, tmp_path) as relayer:
        reader, writer = await dial(relayer)
        writer.write(b"GET /health HTTP/1.1\r\nHost: relayer\r\nX: " + b"x" * 5000)
        await until(lambda: held(relayer) > 5000)
        writer.write(b"\r\n\r\n")
        assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 200")
        assert held(relayer) == 0
        writer.close()


async def test_a_head_beyond_its_limit_is_refused(redis, tmp_path):
    async with relaying(redis, tmp_path) as relayer:
        reader, writer = await dial(relayer)
        writer.write(b"GET /health HTTP/1.1\r\nHost: relayer\r\n")
        for number in range(20):
            writer.write(b"X-%d: %s\r\n" % (number, b"x" * 5000))
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.0 431")
        writer.close()
        await until(lambda: held(relayer) == 0)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost relayer\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: relayer\r\n\r\nGET / HTTP/9\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"a" * 7000) for n in range(11)), 431),
    ],
)
async def test_an_unreadable_request_is_rejected_with_a_code_and_counted_but_is_no_error_of_ours(
    redis, tmp_path, captured_logs, raw, status
):
    async with relaying(redis, tmp_path) as relayer:
        growth = Growth()
        reader, writer = await dial(relayer)
        writer.write(raw)
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
    head, _, body = answer[answer.rindex(b"HTTP/1.") :].partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    found = json.loads(body)
    assert (found["code"], len(found["request_id"])) == ("invalid_request", 16)
    assert (
        growth.of("pocket_relayer_relays_rejected_total", service="", transport="http", reason="invalid_request") >= 1
    )
    assert [event for event in captured_logs if event["log_level"] in ("error", "critical")] == []
