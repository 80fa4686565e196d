"""WebSocket frames (RFC 6455) as raw bytes, in the groups of Autobahn's fuzzing client.

UTF-8 is deliberately not demanded of text frames (Autobahn's group 6): gateways send encoded relay requests in frames
of either type. Frames without mask are taken by aiohttp: the mask protects intermediaries, not servers.
"""

import asyncio
import base64
import contextlib
import os
import struct
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from pocket.protocol.relays.messages import decode_relay_response
from transports import all_transports

pytestmark = pytest.mark.redis
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def framed(opcode, payload=b"", *, fin=True, rsv=0, mask=True, length=None):
    """Return one frame.

    `length` is the length in its head, whatever follows.
    """
    size = len(payload) if length is None else length
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    flag = 0x80 if mask else 0
    if size < 126:
        head += bytes([flag | size])
    elif size < 65536:
        head += bytes([flag | 126]) + struct.pack(">H", size)
    else:
        head += bytes([flag | 127]) + struct.pack(">Q", size)
    if not mask:
        return head + payload
    key = b"\x11\x22\x33\x44"
    return head + key + bytes(b ^ key[i % 4] for i, b in enumerate(payload))


class Wire:
    """A connection after its handshake."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def send(self, *frames, piece=None):
        data = b"".join(frames)
        for at in range(0, len(data), piece or len(data) or 1):
            self.writer.write(data[at : at + (piece or len(data))])
            await self.writer.drain()
            if piece:
                await asyncio.sleep(0)

    async def receive(self):
        """Return (opcode, payload), or (None, b"") at the end."""
        try:
            first, second = await asyncio.wait_for(self.reader.readexactly(2), 10)
            size = second & 0x7F
            if size == 126:
                (size,) = struct.unpack(">H", await self.reader.readexactly(2))
            elif size == 127:
                (size,) = struct.unpack(">Q", await self.reader.readexactly(8))
            assert not second & 0x80, "a server never masks"
            return first & 15, await self.reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None, b""

    async def closed(self):
        """Return the close code, or None if the connection was cut without one."""
        while True:
            opcode, payload = await self.receive()
            if opcode == CLOSE:
                return struct.unpack(">H", payload[:2])[0] if payload else 1005
            if opcode is None:
                return None


@contextlib.asynccontextmanager
async def wire(relayer):
    parts = urlsplit(relayer.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET / HTTP/1.1\r\nHost: relayer\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
        "Sec-WebSocket-Version: 13\r\nTarget-Service-Id: eth\r\n\r\n".encode()
    )
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert head.startswith(b"HTTP/1.1 101"), head
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()


def relay(relayer, payload=b"ping"):
    return relayer.world.signed(replace(relayer.request(), payload=payload)).encode()


async def answered(one, payload):
    opcode, body = await one.receive()
    while opcode in (PING, PONG):
        opcode, body = await one.receive()
    assert opcode in (TEXT, BINARY), (opcode, body)
    assert decode_relay_response(body).payload.removeprefix(b"echo ") == payload
    return opcode


@pytest.mark.parametrize("size", [1, 125, 126, 127, 128, 65_000])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_frames_of_every_length_are_relays_and_keep_their_type(redis, tmp_path, opcode, size):
    async with all_transports(redis, tmp_path) as (relayer, _), wire(relayer) as one:
        payload = b"a" * size
        await one.send(framed(opcode, relay(relayer, payload)))
        assert await answered(one, payload) == opcode
        assert len(await relayer.leaves()) == 1


@pytest.mark.parametrize("piece", [1, 7, 997])
async def test_frames_that_come_in_pieces_are_whole(redis, tmp_path, piece):
    async with all_transports(redis, tmp_path) as (relayer, _), wire(relayer) as one:
        await one.send(framed(PING, b"x"), framed(BINARY, relay(relayer)), framed(PONG), piece=piece)
        assert (await one.receive()) == (PONG, b"x")
        await answered(one, b"ping")


@pytest.mark.parametrize("parts", [2, 3, 50])
async def test_a_relay_in_fragments_with_pings_between_them_is_one_relay(redis, tmp_path, parts):
    async with all_transports(redis, tmp_path) as (relayer, _), wire(relayer) as one:
        body = relay(relayer)
        step = -(-len(body) // parts)
        rows = [body[at : at + step] for at in range(0, len(body), step)]
        for number, row in enumerate(rows):
            await one.send(framed(CONT if number else BINARY, row, fin=number == len(rows) - 1))
            if number < len(rows) - 1:
                await one.send(framed(PING, b"%d" % number))
                assert (await one.receive()) == (PONG, b"%d" % number)
        await answered(one, b"ping")
        assert len(await relayer.leaves()) == 1


@pytest.mark.parametrize("payload", [b"", b"x", b"\x00\xff" * 62, b"z" * 125])
async def test_pings_of_any_payload_are_answered_and_unasked_pongs_are_ignored(redis, tmp_path, payload):
    async with all_transports(redis, tmp_path) as (relayer, _), wire(relayer) as one:
        await one.send(framed(PONG, payload), framed(PING, payload), framed(PONG, payload))
        assert (await one.receive()) == (PONG, payload)
        await one.send(framed(BINARY, relay(relayer)))
        await answered(one, b"ping")


WRONG = {
    "a reserved bit": [framed(BINARY, b"x", rsv=1)],
    "the bit of compression, which was not agreed": [framed(BINARY, b"x", rsv=4)],
    "a reserved bit of a ping": [framed(PING, b"x", rsv=2)],
    **{f"opcode {n}, which nobody knows": [framed(n, b"x")] for n in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "a ping that is too long": [framed(PING, b"x" * 126)],
    "a close that is too long": [framed(CLOSE, struct.pack(">H", 1000) + b"x" * 124)],
    "a ping in fragments": [framed(PING, b"x", fin=False)],
    "a close in fragments": [framed(CLOSE, struct.pack(">H", 1000), fin=False)],
    "a continuation of nothing": [framed(CONT, b"x")],
    "an unfinished continuation of nothing": [framed(CONT, b"x", fin=False)],
    "a new message within another": [framed(TEXT, b"x", fin=False), framed(TEXT, b"y")],
    "a close of one byte": [framed(CLOSE, b"\x03")],
    **{f"close code {n}": [framed(CLOSE, struct.pack(">H", n))] for n in (0, 999, 1004, 1005, 1016, 2000, 2999)},
}


@pytest.mark.parametrize("frames", WRONG.values(), ids=WRONG)
async def test_what_the_protocol_forbids_ends_the_connection_with_1002_and_reaches_no_backend(redis, tmp_path, frames):
    async with all_transports(redis, tmp_path) as (relayer, sockets):
        async with wire(relayer) as one:
            await one.send(*frames)
            assert await one.closed() == 1002
        assert sockets.frames == []
        async with wire(relayer) as other:
            await other.send(framed(BINARY, relay(relayer)))
            await answered(other, b"ping")


async def test_a_close_code_that_only_stands_for_a_lost_connection_is_never_sent_back(redis, tmp_path):
    async with all_transports(redis, tmp_path) as (relayer, _), wire(relayer) as one:
        await one.send(framed(CLOSE, struct.pack(">H", 1006)))
        assert await one.closed() == 1001


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999])
async def test_a_close_is_answered_with_a_close(redis, tmp_path, code):
    async with all_transports(redis, tmp_path) as (relayer, _), wire(relayer) as one:
        await one.send(framed(CLOSE, struct.pack(">H", code) + b"bye"))
        assert await one.closed() == code
        assert await one.receive() == (None, b"")


async def test_a_frame_that_says_it_is_too_large_is_refused_by_its_head(redis, tmp_path):
    async with all_transports(redis, tmp_path) as (relayer, _), wire(relayer) as one:
        await one.send(framed(BINARY, b"x" * 10, length=16 * 1024 * 1024))
        assert await one.closed() == 1009


async def test_fragments_that_together_are_too_large_are_refused(redis, tmp_path):
    async with all_transports(redis, tmp_path) as (relayer, _), wire(relayer) as one:
        part = b"x" * (4 * 1024 * 1024)
        with contextlib.suppress(ConnectionError):
            await one.send(framed(BINARY, part, fin=False))
            for _ in range(3):
                await one.send(framed(CONT, part, fin=False))
        assert await one.closed() in (1009, None)


@pytest.mark.parametrize("body", [b"", b"\x00", b"\xff" * 200, b"GET / HTTP/1.1\r\n\r\n"])
async def test_a_message_that_is_no_relay_ends_with_4001(redis, tmp_path, body):
    async with all_transports(redis, tmp_path) as (relayer, sockets), wire(relayer) as one:
        await one.send(framed(BINARY, body))
        assert await one.closed() == 4001
        assert sockets.frames == []
