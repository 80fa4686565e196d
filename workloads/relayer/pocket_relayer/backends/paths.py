"""The URL a backend is asked with (relay-lifecycle.md, section 4).

Invariant: whatever an envelope's URL says, the backend is asked below its configured path: the request's path is
resolved by itself, then the prefix is put before it.
"""

import posixpath
import re
import string
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, unquote_plus, urlsplit

_PLAIN: Final = re.compile("[!-~]*")
_AS_IT_IS: Final = string.punctuation
"""What a client quoted stays quoted; what nobody did and no request line can hold is quoted here."""
_TO_RESOLVE: Final = re.compile(r"[%;\\]|//|/\.|[^!-~]")
_SEPARATORS: Final = re.compile(r"[/\\]")
_OVERLONG: Final = re.compile(r"%(25)*(c0|e0%(25)*80|f0%(25)*80%(25)*80)%(25)*a[ef]", re.IGNORECASE)
"""A dot or a slash in more bytes than UTF-8 allows: some servers read them nevertheless."""
_DECODINGS: Final = 4  # deeper quoting than this is no path of a client


def _sendable(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else quote(text, safe=_AS_IT_IS, errors="surrogateescape")


def inner_path(path: str) -> str:
    """Resolve a request's path by itself: absolute, without `.`, `..` and empty segments; raises ValueError.

    `..` at the root stays at the root. A segment that is one of these only once it is decoded, cut at `;` or split at a
    backslash is refused: servers disagree about it.
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
        for segment in _SEPARATORS.split(decoded):
            if segment.partition(";")[0].strip("".join(map(chr, range(33))) + "\x7f") in (".", ".."):
                raise ValueError("the path would leave its place once it is decoded")
        further = unquote(decoded, errors="replace")
        if further == decoded:
            return resolved
        decoded = further
    raise ValueError("the path is quoted several times over")


@lru_cache(maxsize=1024)
def prefix_of(endpoint_path: str, base_path: str) -> str:
    """What is put before a request's path: the base path if set, else the endpoint's; without a slash at its end."""
    path = posixpath.normpath("/" + (base_path or endpoint_path).strip("/"))
    return "" if path == "/" else path


def merge_path(endpoint_path: str, base_path: str, request_path: str) -> str:
    """Prefix and request path; not repeated where the request's begins with it. Raises ValueError."""
    prefix, path = prefix_of(endpoint_path, base_path), inner_path(request_path)
    if path == "/":
        return prefix or "/"
    return path if prefix and (path == prefix or path.startswith(prefix + "/")) else prefix + path


def _merged_query(configured: str, asked: str) -> str:
    """Both queries; a parameter of the configuration cannot be given again by a client."""
    if configured and asked:
        names = {name for name, _ in parse_qsl(configured, keep_blank_values=True)}
        parts = (part for part in asked.split("&") if unquote_plus(part.partition("=")[0]) not in names)
        asked = "&".join(parts)
    return "&".join(part for part in (configured, asked) if part)


def backend_url(endpoint: str, base_path: str, envelope_url: str) -> str:
    """Scheme and host of the endpoint, merged path, both queries. Only path and query of the envelope are used.

    Raises ValueError for an envelope's URL that is none, or whose path would leave the configured one.
    """
    target, wanted = urlsplit(endpoint), urlsplit(envelope_url)
    path = _sendable(merge_path(target.path, base_path, wanted.path))
    query = _sendable(_merged_query(target.query, wanted.query))
    return f"{target.scheme}://{target.netloc}{path}" + (f"?{query}" if query else "")


def public_place(url: str) -> str:
    """Name an endpoint for logs and status: scheme, host and port. Path, query and user may hold keys."""
    try:
        parts = urlsplit(url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
        return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")
    except ValueError:
        return "a URL that cannot be read"


def grpc_method(envelope_url: str) -> str:
    """The path of a gRPC method in an envelope's URL. Raises ValueError for what is none."""
    path = urlsplit(envelope_url).path or "/"
    if not _PLAIN.fullmatch(path):
        raise ValueError("the name of a gRPC method is plain ASCII")
    return path
