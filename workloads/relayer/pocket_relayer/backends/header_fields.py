"""Header fields on their way to a backend and back.

Invariants: only tokens are names and only printable text are values; what belongs to one connection never passes to
another; what the configuration sets cannot be set by a client, in whatever spelling.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from multidict import CIMultiDict

from pocket.protocol.relays.envelope import Headers, HttpRequest, canonical_headers
from pocket_relayer.rejection import Rejected, RejectionReason

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Of relays and of what is inside them."""
MOST_HEADERS: Final = 256
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_FILLED_FROM_OUTSIDE: Final = ("Content-Type", "Accept", "User-Agent")
_HOP_BY_HOP: Final = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authentication-info", "proxy-authorization",
    "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "http2-settings",
})  # fmt: skip
"""They and those that Connection names belong to one connection."""
_NEVER_SENT: Final = _HOP_BY_HOP | {
    "host", "content-length", "accept-encoding", "expect",  # the client to the backend sets its own
    # What only a proxy that the backend trusts may say: where a request came from, or what it really asks for.
    "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto", "x-forwarded-prefix",
    "x-forwarded-server", "x-forwarded-uri", "x-real-ip", "x-original-url", "x-original-uri", "x-rewrite-url",
    "x-http-method", "x-http-method-override", "x-method-override",
}  # fmt: skip
_NOT_OF_STREAMS: Final = frozenset({
    "content-length", "content-encoding", "server", "date", "via", "set-cookie", "alt-svc", "strict-transport-security",
})  # fmt: skip
"""A stream's head is the relayer's own; what a backend says of itself or of its own body and host is left out."""
_STREAM_HEADERS, _STREAM_HEADER_CHARACTERS = 64, 4096


def _named_by_connection(headers: Mapping[str, Iterable[str]]) -> set[str]:
    """Further names that belong to one connection."""
    return {
        part.strip().lower()
        for name, values in headers.items()
        if name.lower() == "connection"
        for value in values
        for part in value.split(",")
    }


def check_method(method: str) -> None:
    """Raises Rejected for what no backend is asked with."""
    if method and method not in METHODS:
        raise Rejected(
            RejectionReason.METHOD_NOT_ALLOWED,
            f"method {method[:20]!r} is not served, only {', '.join(sorted(METHODS))}",
        )


def check_field(name: str, value: str) -> None:
    """Raises Rejected for a header that could be read as another, or as two."""
    if not _TOKEN.fullmatch(name):
        raise Rejected(RejectionReason.INVALID_REQUEST, f"header name {name[:40]!r} is not a token of HTTP")
    if not _VALUE.fullmatch(value):
        raise Rejected(RejectionReason.INVALID_REQUEST, f"header {name[:40]} has a control character in its value")


def sent_fields(request: HttpRequest, ours: Iterable[str]) -> list[tuple[str, str]]:
    """Return the envelope's headers that go to a backend; raises Rejected.

    ours: names in lower case that only the configuration sets. A name with `_` is one with `-` to many servers.
    """
    if sum(map(len, request.headers.values())) > MOST_HEADERS:
        raise Rejected(RejectionReason.INVALID_REQUEST, f"the payload has more than {MOST_HEADERS} headers")
    never = _NEVER_SENT.union(_named_by_connection(request.headers))
    fields = []
    for name, values in request.headers.items():
        for value in values:
            check_field(name, value)
        if not values:
            check_field(name, "")
        spelled = name.lower()
        dashed = spelled.replace("_", "-")
        if dashed in never or dashed in ours or (dashed != spelled and dashed.startswith("pocket-")):
            continue
        fields += [(name, value) for value in values]
    return fields


def request_headers(
    request: HttpRequest, outer: Mapping[str, str], extra: Mapping[str, str], configured: Mapping[str, str]
) -> CIMultiDict[str]:
    """Headers for the backend: envelope first, gaps from outside, Pocket-* and configured ones on top."""
    ours = {name.lower() for name in (*extra, *configured)}
    headers: CIMultiDict[str] = CIMultiDict(sent_fields(request, ours))
    for name in _FILLED_FROM_OUTSIDE:
        if name not in headers and name in outer:
            headers[name] = outer[name]
    for name, value in outer.items():
        if name.lower().startswith("pocket-"):
            check_field(name, value)
            headers[name] = value
    headers.update(extra)
    headers.update(configured)
    headers["Accept-Encoding"] = "identity"
    return headers


def _readable(value: str) -> str:
    """A value as text: bytes that are no UTF-8 are Latin-1, control characters are blanks (RFC 9110, section 5.5)."""
    if value.isascii():
        return value if value.isprintable() else _CONTROL.sub(" ", value)
    try:
        value.encode()
    except UnicodeEncodeError:
        value = value.encode("utf-8", "surrogateescape").decode("latin-1")
    return _CONTROL.sub(" ", value)


def answer_headers(pairs: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Headers of an answer as they are signed: canonical names, readable values, none of the connection's."""
    headers = canonical_headers((name, _readable(value)) for name, value in pairs)
    never = _HOP_BY_HOP | _named_by_connection(headers) if "Connection" in headers else _HOP_BY_HOP
    return {name: values for name, values in headers.items() if name.lower() not in never}


def stream_headers(headers: Headers) -> dict[str, str]:
    """What of a stream's head goes to the gateway, unsigned; bounded, as its clients bound what they read."""
    kept = {}
    for name, values in headers.items():
        value = ", ".join(values)
        if name.lower() in _NOT_OF_STREAMS or len(name) + len(value) > _STREAM_HEADER_CHARACTERS:
            continue
        kept[name] = value
        if len(kept) == _STREAM_HEADERS:
            break
    return kept
