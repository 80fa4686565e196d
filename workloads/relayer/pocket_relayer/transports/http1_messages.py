"""Parse the head of an ordinary relay request, and encode responses.

llhttp (through httptools) parses the head as strictly as aiohttp does. Any other request is not parsed here.
"""

import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from httptools import HttpParserError, HttpRequestParser
from multidict import CIMultiDict, CIMultiDictProxy

from pocket.runtime.bounded_dict import BoundedDict
from pocket_relayer.transports.replies import OutgoingResponse

MAX_HEAD_BYTES: Final = 8190
"""Length of a request's head up to which it is ordinary."""
_SHORT_HEAD: Final = 1024
"""Length of a head up to which it is remembered."""
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
    """The head of an ordinary relay request: POST with a length, without any encoding.

    It may be shared by requests with the same head.
    """

    __slots__ = ("_fields", "body_bytes", "headers", "keep_alive", "path")

    def __init__(self) -> None:
        self.path = ""
        self._fields: CIMultiDict[str] = CIMultiDict()
        self.headers = CIMultiDictProxy(self._fields)
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
        self._fields.add(name.decode(), value.decode("utf-8", "surrogateescape"))


def parse_head(data: bytes) -> tuple[RequestHead, int] | None:
    """Return the head at the start of `data` with its length in bytes.

    Returns None if the head is incomplete or is not that of an ordinary relay request.
    """
    end = data.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES) + 4
    if end < 4 or not data.startswith(_METHOD) or not data.endswith(_VERSION, 0, data.find(b"\r\n", 0, end)):
        return None
    head = _known_head(data[:end]) if end <= _SHORT_HEAD else _parsed(data[:end])
    return (head, end) if head is not None else None


def _parsed(data: bytes) -> RequestHead | None:
    head = RequestHead()
    try:
        HttpRequestParser(head).feed_data(data)
    except (HttpParserError, UnicodeDecodeError):
        return None
    return head if head.body_bytes >= 0 and "Host" in head.headers else None


_known_head = lru_cache(maxsize=512)(_parsed)
"""Clients repeat their heads, since their relays have few lengths."""


class _Date:
    """The Date field, formatted once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._text = b""

    def text(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second, self._text = second, formatdate(second, usegmt=True).encode()
        return self._text


_DATE: Final = _Date()


def encode_response_head(reply: OutgoingResponse, *, chunked: bool = False, close: bool = False) -> bytes:
    """Return the status line and the header fields of a response.

    Raises ValueError for a field that would end early or start another one.
    """
    key = (reply.status, *reply.headers.items(), *reply.trailers.items())
    known = _known_responses.get(key)
    if known is None:
        known = _encode_fields(reply)
        if len(known) <= _SHORT_HEAD:
            _known_responses[key] = known
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(reply.body)
    return b"%b%b\r\nDate: %b\r\n%b" % (known, length, _DATE.text(), _CLOSE if close else _END)


def _encode_fields(reply: OutgoingResponse) -> bytes:
    lines = [f"HTTP/1.1 {reply.status} {_REASONS.get(reply.status, '')}"]
    lines += [f"{name}: {value}" for name, value in (*reply.headers.items(), *reply.trailers.items())]
    text = "\r\n".join(lines) + "\r\n"
    if not text.count("\r") == text.count("\n") == len(lines) or "\0" in text:
        raise ValueError("a header field of a response holds the end of a line")
    return text.encode("utf-8", "surrogateescape")


_known_responses: Final[BoundedDict[tuple[object, ...], bytes]] = BoundedDict(256)
"""Status lines and fields without length and date, which repeat."""
_END: Final = b"Server: relayer\r\n\r\n"
_CLOSE: Final = b"Server: relayer\r\nConnection: close\r\n\r\n"
