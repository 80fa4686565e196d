"""The URL that a backend is called with (relay-lifecycle.md, section 4).

Invariant: the backend is called below its configured path, whatever URL the envelope holds. The request's path is
resolved alone, then the prefix is put in front of it.
"""

import posixpath
import re
import string
from functools import lru_cache
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, unquote_plus, urlsplit

_PLAIN: Final = re.compile("[!-~]*")
_AS_IT_IS: Final = string.punctuation
"""Characters that are sent as they are.

What a client quoted stays quoted. Characters that no request line can hold are quoted here.
"""
_TO_RESOLVE: Final = re.compile(r"[%;\\]|//|/\.|[^!-~]")
_LEAVES: Final = re.compile(r"(?:\A|[/\\])[\x00-\x20\x7f]*\.\.?[\x00-\x20\x7f]*(?:[;/\\]|\Z)")
"""A segment that is `.` or `..` to a server that splits at backslashes, cuts at a semicolon or strips blanks."""
_OVERLONG: Final = re.compile(r"%(25)*(c0|e0%(25)*80|f0%(25)*80%(25)*80)%(25)*a[ef]", re.IGNORECASE)
"""Overlong UTF-8 of a dot or a slash, which some servers accept."""
_MOST_URL, _MOST_PATH = 64 * 1024, 8 * 1024
"""Limits of an envelope's URL and of its path, in characters. Resolving them takes the event loop's time."""
_SHORT_URL: Final = 256  # characters up to which an envelope's URL is worth caching
_DECODINGS: Final = 4  # a path that is quoted more often is rejected


def _sendable(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else quote(text, safe=_AS_IT_IS, errors="surrogateescape")


def inner_path(path: str) -> str:
    """Return a request's path, absolute and without `.`, `..` and empty segments.

    `..` at the root stays at the root. Raises ValueError for a segment that becomes `.` or `..` only once it is
    decoded, cut at `;` or split at a backslash, because servers disagree about it.
    """
    rooted = path if path.startswith("/") else "/" + path
    if not _TO_RESOLVE.search(rooted):
        return rooted
    resolved = posixpath.normpath("/" + rooted.lstrip("/"))
    if rooted.endswith("/") and resolved != "/":
        resolved += "/"
    if "\\" in resolved or _OVERLONG.search(resolved):
        raise ValueError("the path holds a backslash, or a dot in more bytes than it needs")
    decoded = resolved
    for _ in range(_DECODINGS):
        if _LEAVES.search(decoded):
            raise ValueError("the path would leave its place once it is decoded")
        further = unquote(decoded, errors="replace")
        if further == decoded:
            return resolved
        decoded = further
    raise ValueError("the path is quoted several times over")


@lru_cache(maxsize=1024)
def prefix_of(endpoint_path: str, base_path: str) -> str:
    """Return the prefix of request paths: the base path, else the endpoint's.

    It does not end with a slash.
    """
    path = posixpath.normpath("/" + (base_path or endpoint_path).strip("/"))
    return "" if path == "/" else path


def merge_path(endpoint_path: str, base_path: str, request_path: str) -> str:
    """Join prefix and request path, without repeating a prefix that the request has.

    Raises ValueError for a path that would leave the prefix.
    """
    prefix, path = prefix_of(endpoint_path, base_path), inner_path(request_path)
    if path == "/":
        return prefix or "/"
    return path if prefix and (path == prefix or path.startswith(prefix + "/")) else prefix + path


def _split(envelope_url: str) -> SplitResult:
    """Return the parts of an envelope's URL.

    Raises ValueError if it is invalid or too long.
    """
    if len(envelope_url) > _MOST_URL:
        raise ValueError(f"it is longer than {_MOST_URL} characters")
    wanted = urlsplit(envelope_url)
    if len(wanted.path) > _MOST_PATH:
        raise ValueError(f"its path is longer than {_MOST_PATH} characters")
    return wanted


def _merged_query(configured: str, asked: str) -> str:
    """Join both queries, without parameters of a client that the configuration sets."""
    if configured and asked:
        names = {name for name, _ in parse_qsl(configured, keep_blank_values=True)}
        parts = (part for part in asked.split("&") if unquote_plus(part.partition("=")[0]) not in names)
        asked = "&".join(parts)
    return "&".join(part for part in (configured, asked) if part)


def backend_target(endpoint: str, base_path: str, envelope_url: str) -> str:
    """Return path and query of a request to a backend.

    Those of the endpoint and of the envelope are joined. Only path and query of the envelope's URL are used. Raises
    ValueError for an invalid URL, or if its path would leave the configured one.
    """
    if len(envelope_url) > _SHORT_URL:
        return _target(endpoint, base_path, envelope_url)
    return _known_target(endpoint, base_path, envelope_url)


def _target(endpoint: str, base_path: str, envelope_url: str) -> str:
    target, wanted = urlsplit(endpoint), _split(envelope_url)
    path = _sendable(merge_path(target.path, base_path, wanted.path))
    query = _sendable(_merged_query(target.query, wanted.query))
    return path + (f"?{query}" if query else "")


_known_target = lru_cache(maxsize=1024)(_target)


@lru_cache(maxsize=1024)
def origin_of(endpoint: str) -> str:
    """Return scheme and authority of an endpoint."""
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{parts.netloc}"


def public_origin(url: str) -> str:
    """Return scheme, host and port of an endpoint for logs and status.

    Path, query and user are left out because they may hold keys.
    """
    try:
        parts = urlsplit(url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
        return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")
    except ValueError:
        return "a URL that cannot be read"


def grpc_method(envelope_url: str) -> str:
    """Return the path of the gRPC method in an envelope's URL.

    Raises ValueError for a name that is not plain ASCII.
    """
    path = _split(envelope_url).path or "/"
    if not _PLAIN.fullmatch(path):
        raise ValueError("the name of a gRPC method is plain ASCII")
    return path
