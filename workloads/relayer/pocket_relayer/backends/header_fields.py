"""Header fields of requests to a backend and of its responses.

Invariants: a name is a token and a value is printable text. Fields of one connection never pass to another. A client
cannot set what the configuration sets, in any spelling.
"""

import functools
import re
from collections.abc import Iterable, Mapping
from typing import Final

from multidict import CIMultiDict, CIMultiDictProxy

from pocket.protocol.relays.envelope import Headers, HttpRequest, canonical_header_name
from pocket.runtime.bounded_dict import BoundedDict
from pocket_relayer.backends.backend_connection import BrokenResponse
from pocket_relayer.limits.rejection import Rejected, RejectionReason

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Methods of relays and of the requests inside them."""
MOST_HEADERS: Final = 256
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_FILLED_FROM_OUTSIDE: Final = ("Content-Type", "Accept", "User-Agent")
_HOP_BY_HOP: Final = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authentication-info", "proxy-authorization",
    "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "http2-settings",
})  # fmt: skip
"""Fields of one connection, in addition to those that Connection names."""
_HOP_BY_HOP_NAMES: Final = frozenset(map(canonical_header_name, _HOP_BY_HOP - {"connection"}))
"""The same in canonical case. Connection names further ones."""
_NEVER_SENT: Final = _HOP_BY_HOP | {
    "host", "content-length", "accept-encoding", "expect",  # the client to the backend sets its own
    "forwarded", "x-forwarded", "client-ip", "x-client-ip", "true-client-ip", "x-cluster-client-ip", "cf-connecting-ip",
    "fastly-client-ip", "client-cert", "client-cert-chain", "x-rewrite-url", "x-user", "x-webauth-user",
    "x-http-method", "x-http-method-override", "x-method-override",
}  # fmt: skip
_OF_TRUSTED_PROXIES: Final = (
    "x-forwarded-", "x-real-", "x-original-", "x-auth-request-", "x-envoy-", "x-remote-", "remote-", "x-client-cert",
    "x-ssl-", "ssl-client-", "x-authenticated-", "x-goog-authenticated-", "x-goog-iap-", "x-amzn-oidc-", "x-ms-client-",
)  # fmt: skip
"""Prefixes of fields that only a proxy which the backend trusts may set, like a part of `_NEVER_SENT`.

They name a request's origin, its real target or its user.
"""
_NOT_OF_STREAMS: Final = frozenset({
    "content-length", "content-encoding", "server", "date", "via", "set-cookie", "alt-svc", "strict-transport-security",
})  # fmt: skip
"""Fields that a stream's head leaves out.

They describe the backend's own body and host. The head of a stream is the relayer's own.
"""
_STREAM_HEADERS, _STREAM_HEADER_CHARACTERS = 64, 4096
_Pairs = tuple[tuple[str, str], ...]
_SHORT_FIELD: Final = 128  # characters of a response's field up to which it is remembered
_SHORT_HEADERS: Final = 2048  # characters of a request's headers up to which they are remembered
_known_requests: Final[BoundedDict[tuple[object, ...], CIMultiDictProxy[str]]] = BoundedDict(512)
"""Headers for a backend by what they are made of: a session's relays repeat them."""


def _named_by_connection(headers: Mapping[str, Iterable[str]]) -> set[str]:
    """Return the further names that Connection lists."""
    return {
        part.strip().lower()
        for name, values in headers.items()
        if name.lower() == "connection"
        for value in values
        for part in value.split(",")
    }


def check_method(method: str) -> None:
    """Raise Rejected for a method that no backend is called with."""
    if method and method not in METHODS:
        raise Rejected(
            RejectionReason.METHOD_NOT_ALLOWED,
            f"method {method[:20]!r} is not served, only {', '.join(sorted(METHODS))}",
        )


def check_field(name: str, value: str) -> None:
    """Raise Rejected for a field that a server could read as another field, or as two."""
    if not _TOKEN.fullmatch(name):
        raise Rejected(RejectionReason.INVALID_REQUEST, f"header name {name[:40]!r} is not a token of HTTP")
    if not _VALUE.fullmatch(value):
        raise Rejected(RejectionReason.INVALID_REQUEST, f"header {name[:40]} has a control character in its value")


def sent_fields(request: HttpRequest, ours: Iterable[str]) -> list[tuple[str, str]]:
    """Return the envelope's fields that are sent to a backend.

    `ours` are names in lower case that only the configuration sets. Many servers read `_` in a name as `-`. Raises
    Rejected.
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
        if dashed.startswith(_OF_TRUSTED_PROXIES):
            continue
        fields += [(name, value) for value in values]
    return fields


def request_headers(
    request: HttpRequest, outer: Mapping[str, str], extra: Mapping[str, str], configured: Mapping[str, str]
) -> CIMultiDictProxy[str]:
    """Return the headers for the backend.

    The envelope's headers come first, gaps are filled from the outer request, and Pocket-* and configured headers
    override both. Raises Rejected.
    """
    filled = tuple((name, outer[name]) for name in _FILLED_FROM_OUTSIDE if name in outer)
    pocket = tuple((name, value) for name, value in outer.items() if name.lower().startswith("pocket-"))
    key = (*request.headers.items(), None, filled, pocket, *extra.items(), None, *configured.items())
    known = _known_requests.get(key)
    if known is None:
        known = CIMultiDictProxy(_combined(request, filled, pocket, extra, configured))
        if sum(len(name) + len(value) for name, value in known.items()) <= _SHORT_HEADERS:
            _known_requests[key] = known
    return known


def _combined(
    request: HttpRequest, filled: _Pairs, pocket: _Pairs, extra: Mapping[str, str], configured: Mapping[str, str]
) -> CIMultiDict[str]:
    ours = {name.lower() for name in (*extra, *configured)}
    headers: CIMultiDict[str] = CIMultiDict(sent_fields(request, ours))
    for name, value in filled:
        if name not in headers:
            headers[name] = _readable(value)
    for name, value in pocket:
        check_field(name, value)
        headers[name] = _readable(value)
    headers.update(extra)
    headers.update(configured)
    headers["Accept-Encoding"] = "identity"
    return headers


def _readable(value: str) -> str:
    """Return a value as text.

    Bytes that are not UTF-8 are read as Latin-1, control characters become blanks (RFC 9110, section 5.5).
    """
    if value.isascii():
        return _CONTROL.sub(" ", value)
    try:
        value.encode()
    except UnicodeEncodeError:
        value = value.encode("utf-8", "surrogateescape").decode("latin-1")
    return _CONTROL.sub(" ", value)


def _answer_field(name: str, value: str) -> tuple[str, tuple[str]]:
    """Return a field's canonical name and its readable value.

    The name is '' for a field of the connection. Raises BrokenResponse for a name that is no token.
    """
    if not _TOKEN.fullmatch(name):
        raise BrokenResponse
    key = canonical_header_name(name)
    if key in _HOP_BY_HOP_NAMES:
        return "", ("",)
    return key, (value if value.isascii() and value.isprintable() else _readable(value),)


_known_answer_field = functools.lru_cache(maxsize=4096)(_answer_field)


def answer_headers(pairs: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Return a response's headers as they are signed.

    Names are canonical, values readable, and fields of the connection are left out. Raises BrokenResponse for a name
    that is no token: "Content-Length " would be another field for the next reader.
    """
    headers: dict[str, tuple[str, ...]] = {}
    for name, value in pairs:
        short = len(name) + len(value) <= _SHORT_FIELD
        key, plain = _known_answer_field(name, value) if short else _answer_field(name, value)
        if key:
            headers[key] = (*headers[key], *plain) if key in headers else plain
    named = headers.pop("Connection", ())
    for option in (part.strip() for value in named for part in value.split(",")):
        headers.pop(canonical_header_name(option), None)
    return headers


def stream_headers(headers: Headers) -> dict[str, str]:
    """Return the headers of a stream's head that go to the gateway, unsigned.

    They are limited in number and size, as clients limit what they read.
    """
    kept = {}
    for name, values in headers.items():
        value = ", ".join(values)
        if name.lower() in _NOT_OF_STREAMS or len(name) + len(value) > _STREAM_HEADER_CHARACTERS:
            continue
        kept[name] = value
        if len(kept) == _STREAM_HEADERS:
            break
    return kept
