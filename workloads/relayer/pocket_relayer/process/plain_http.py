"""Serve a few paths by GET, one request for each connection.

llhttp (through httptools) parses the requests. The supervisor runs for as long as its workers: a web framework would be
a third of its memory (docs/decisions/0031-supervisor-admin-port.md).
"""

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser, parse_url

_SECONDS: Final = 5.0  # for a request and its response
_VERSIONS: Final = ("1.0", "1.1")
_LARGEST_HEAD: Final = 16 * 1024
_MOST: Final = 64  # connections: probes, a scraper, the operator


@dataclass(frozen=True, slots=True)
class PlainResponse:
    """A response with its body."""

    body: bytes
    content_type: str = "application/json; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK

    @classmethod
    def of_json(cls, value: Any, status: HTTPStatus = HTTPStatus.OK) -> "PlainResponse":
        """Return a JSON response."""
        return cls(json.dumps(value).encode(), status=status)

    def encode(self, *, with_body: bool) -> bytes:
        """Return the message. A response to HEAD has no body."""
        head = (
            f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\nContent-Type: {self.content_type}\r\n"
            f"Content-Length: {len(self.body)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode("ascii") + (self.body if with_body else b"")


def _failed(status: HTTPStatus) -> PlainResponse:
    return PlainResponse(f"{status.value}: {status.phrase}".encode(), "text/plain; charset=utf-8", status)


class _Request:
    """The target of a request, as the parser finds it."""

    url = b""

    def on_url(self, url: bytes) -> None:
        """Keep the target, or a part of it."""
        self.url += url


class PlainServer:
    """Answers GET and HEAD of the routes' paths, whatever their queries are."""

    def __init__(self, routes: Mapping[str, Callable[[], PlainResponse]]) -> None:
        self._routes = routes
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises OSError."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=_LARGEST_HEAD)

    @property
    def port(self) -> int:
        """Return the port on which it listens, 0 before that."""
        return 0 if self._server is None else int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening and end the open connections."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._connections):
            writer.transport.abort()
        if self._server is not None:
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= _MOST:
            writer.transport.abort()
            return
        self._connections.add(writer)
        try:
            with contextlib.suppress(TimeoutError, ConnectionError, asyncio.IncompleteReadError):
                async with asyncio.timeout(_SECONDS):
                    writer.write(await self._answer(reader))
                    writer.write_eof()
                    await writer.drain()
                    await reader.read(1)  # the client closes, or the time is over
        finally:
            self._connections.discard(writer)
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        """Read a request and return its response. Raises IncompleteReadError."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _failed(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE).encode(with_body=True)
        request = _Request()
        parser = HttpRequestParser(request)
        try:
            parser.feed_data(head)
            path = parse_url(request.url).path.decode("ascii")
        except HttpParserUpgrade:
            path = ""
        except (HttpParserError, UnicodeDecodeError):
            return _failed(HTTPStatus.BAD_REQUEST).encode(with_body=True)
        if parser.get_http_version() not in _VERSIONS:
            return _failed(HTTPStatus.BAD_REQUEST).encode(with_body=True)
        method = parser.get_method().decode("ascii")
        route = self._routes.get(path)
        if route is None:
            response = _failed(HTTPStatus.NOT_FOUND)
        elif method not in ("GET", "HEAD"):
            response = _failed(HTTPStatus.METHOD_NOT_ALLOWED)
        else:
            response = route()
        return response.encode(with_body=method != "HEAD")
