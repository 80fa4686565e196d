"""Parse the head of an ordinary relay request, and encode responses.

llhttp (through httptools) parses the head as strictly as aiohttp does. Any other request is not parsed here.
"""

import time
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from httptools import HttpParserError, HttpRequestParser
from multidict import CIMultiDict

from pocket_relayer.transports.replies import OutgoingResponse

MAX_HEAD_BYTES: Final = 8190
"""Length of a request's head up to which it is ordinary."""
_METHOD: Final = b"POST "
_VERSION: Final = b" HTTP/1.1"
_UNUSUAL: Final = frozenset({
    b"transfer-encoding", b"content-encoding", b"expect", b"upgrade", b"trailer", b"http2-settings",
})  # fmt: skip
"""Fields of requests that are not ordinary."""
_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}


class _Unusual(Exception):
    """Ends the parsing of a request that is not ordinary."""


class RequestHead:
    """The head of an ordinary relay request: POST with a length, without any encoding."""

    __slots__ = ("body_bytes", "headers", "keep_alive", "path")

    def __init__(self) -> None:
        self.path = ""
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.body_bytes = -1
        self.keep_alive = True

    def on_url(self, url: bytes) -> None:
        """Keep the path."""
        if self.path or url[:1] != b"/":
            raise _Unusual
        self.path = url.decode("ascii")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header field."""
        lowered = name.lower()
        if lowered == b"content-length":
            self.body_bytes = int(value)
        elif lowered == b"connection":
            option = value.lower()
            if option == b"close":
                self.keep_alive = False
            elif option != b"keep-alive":
                raise _Unusual
        elif lowered == b"host":
            if "Host" in self.headers:
                raise _Unusual
        elif lowered in _UNUSUAL or (lowered == b"content-type" and value.startswith(b"application/grpc")):
            raise _Unusual
        self.headers.add(name.decode(), value.decode("utf-8", "surrogateescape"))


def parse_head(data: bytes) -> tuple[RequestHead, int] | None:
    """Return the head at the start of `data` with its length in bytes.

    Returns None if the head is incomplete or is not that of an ordinary relay request.
    """
    end = data.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES) + 4
    if end < 4 or not data.startswith(_METHOD) or not data.endswith(_VERSION, 0, data.find(b"\r\n", 0, end)):
        return None
    head = RequestHead()
    try:
        HttpRequestParser(head).feed_data(data[:end])
    except (HttpParserError, UnicodeDecodeError):
        return None
    return (head, end) if head.body_bytes >= 0 and "Host" in head.headers else None


class _Date:
    """The Date field, formatted once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._text = ""

    def text(self) -> str:
        second = int(time.time())
        if second != self._second:
            self._second, self._text = second, formatdate(second, usegmt=True)
        return self._text


_DATE: Final = _Date()


def encode_response_head(reply: OutgoingResponse, *, chunked: bool = False, close: bool = False) -> bytes:
    """Return the status line and the header fields of a response.

    Raises ValueError for a field that would end early or start another one.
    """
    lines = [f"HTTP/1.1 {reply.status} {_REASONS.get(reply.status, '')}"]
    lines += [f"{name}: {value}" for name, value in reply.headers.items()]
    lines += [f"{name}: {value}" for name, value in reply.trailers.items()]
    lines.append("Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(reply.body)}")
    lines.append(f"Date: {_DATE.text()}\r\nServer: relayer")
    text = "\r\n".join(lines)
    if not text.count("\r") == text.count("\n") == len(lines) or "\0" in text:
        raise ValueError("a header field of a response holds the end of a line")
    return f"{text}{_CLOSE if close else _END}".encode("utf-8", "surrogateescape")


_END: Final = "\r\n\r\n"
_CLOSE: Final = "\r\nConnection: close\r\n\r\n"
