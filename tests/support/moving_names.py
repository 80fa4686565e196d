"""Names whose entry moves to another address, as after a fail-over by DNS."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Iterator

ADDRESS = struct.Struct(">HHIH")
FIRST, SECOND = "127.0.0.2", "127.0.0.3"


class NameServer(asyncio.DatagramProtocol):
    """Answers every query for an IPv4 address with `address`."""

    def __init__(self, address: str) -> None:
        self.address = address

    def connection_made(self, transport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, sender) -> None:
        question = data[12 : data.index(0, 12) + 5]
        is_ipv4 = question[-4:-2] == b"\x00\x01"
        answer = b"\xc0\x0c" + ADDRESS.pack(1, 1, 1, 4) + socket.inet_aton(self.address) if is_ipv4 else b""
        head = data[:2] + b"\x81\x80" + struct.pack(">HHHH", 1, bool(answer), 0, 0)
        self._transport.sendto(head + question + answer, sender)


@contextlib.asynccontextmanager
async def name_server(address: str = FIRST) -> AsyncIterator[tuple[NameServer, str]]:
    """Yield a name server and its address with the port, as gRPC takes it in `dns://ADDRESS/NAME`."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(lambda: NameServer(address), ("127.0.0.1", 0))
    try:
        yield server, "{}:{}".format(*transport.get_extra_info("sockname"))
    finally:
        transport.close()


class Names(dict[str, str]):
    """Name → address, as the system's resolver returns it."""


@contextlib.contextmanager
def resolved(**names: str) -> Iterator[Names]:
    """Resolve names, without their last part `.test`, to addresses that may move."""
    known, resolve = Names({f"{name}.test": address for name, address in names.items()}), socket.getaddrinfo

    def getaddrinfo(host, *rest, **options):
        name = host.decode() if isinstance(host, bytes) else host
        return resolve(known.get(name, host), *rest, **options)

    socket.getaddrinfo = getaddrinfo
    try:
        yield known
    finally:
        socket.getaddrinfo = resolve
