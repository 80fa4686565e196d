"""Requests of which a header cannot be read or repeated: answered with a code, and not reported as defects."""

import json
import logging

import pytest
from h2.events import DataReceived, ResponseReceived, StreamReset

from callers import METHOD
from hostile_clients import dial, served
from http2_client import Http2Client
from relays import relaying

pytestmark = pytest.mark.redis


HANDSHAKE = {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}


@pytest.mark.parametrize(
    "fields",
    [
        {"Sec-WebSocket-Key": "\xff"}, {"Sec-WebSocket-Key": "short"}, {"Sec-WebSocket-Version": "9"},
        {"Sec-WebSocket-Version": "\xff"},
    ],
)  # fmt: skip
async def test_an_invalid_websocket_handshake_is_answered_with_a_code_and_not_logged(redis, tmp_path, caplog, fields):
    backends = {"webSocket": {"urls": ["ws://127.0.0.1:1"]}}
    async with relaying(redis, tmp_path, backends=backends) as relayer:
        reader, writer = await dial(relayer)
        lines = {"Upgrade": "websocket", "Connection": "Upgrade", "Target-Service-Id": "eth", **HANDSHAKE, **fields}
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"GET / HTTP/1.1\r\nHost: relayer\r\n{text}\r\n".encode("latin-1"))
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert head.startswith(b"HTTP/1.1 400 ")
        assert json.loads(body)["code"] == "invalid_request"
        records = [record for record in caplog.records if record.name != "asyncio"]  # which tells of a busy machine
        assert [record for record in records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("value", [b"application/grpc-web\xff", b"application/grpc-web+\xc3\xa9"])
async def test_a_content_type_that_cannot_be_repeated_is_answered(redis, tmp_path, value):
    async with relaying(redis, tmp_path) as relayer:
        client = await Http2Client.dial(relayer)
        client.head[1] = (":path", METHOD)
        client.begin(headers=[(b"content-type", value)], end=True)
        answer = await client.read(lambda event: isinstance(event, ResponseReceived | StreamReset))
        assert (":status", "200") in answer.headers
        assert b"grpc-status: 3" in (await client.read(lambda event: isinstance(event, DataReceived))).data
        client.writer.close()
        assert await served(relayer)
