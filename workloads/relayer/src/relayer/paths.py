"""The URL a backend is asked with (relay-lifecycle.md, section 4)."""

import posixpath
import re
import string
from typing import Final
from urllib.parse import quote, urlsplit

_PLAIN: Final = re.compile("[!-~]*")
_AS_IT_IS: Final = string.punctuation
"""What a client quoted stays quoted; what nobody did and no request line can hold is quoted here."""


def _sendable(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else quote(text, safe=_AS_IT_IS, errors="surrogateescape")


def merge_path(endpoint_path: str, base_path: str, request_path: str) -> str:
    """Prefix (base path if set, else the endpoint's) and request path, not repeated at a segment boundary, cleaned."""
    prefix = (base_path or endpoint_path).rstrip("/")
    path = "" if request_path == "/" else request_path
    joined = path if prefix and (path == prefix or path.startswith(prefix + "/")) else f"{prefix}/{path.lstrip('/')}"
    if not path:
        joined = prefix or "/"
    cleaned = posixpath.normpath("/" + joined.lstrip("/"))
    return cleaned + "/" if joined.endswith("/") and cleaned != "/" else cleaned


def backend_url(endpoint: str, base_path: str, envelope_url: str) -> str:
    """Scheme and host of the endpoint, merged path, both queries. Only path and query of the envelope are used.

    Raises ValueError for an envelope's URL that is none.
    """
    target, wanted = urlsplit(endpoint), urlsplit(envelope_url)
    path = _sendable(merge_path(target.path, base_path, wanted.path))
    query = _sendable("&".join(part for part in (target.query, wanted.query) if part))
    return f"{target.scheme}://{target.netloc}{path}" + (f"?{query}" if query else "")


def grpc_method(envelope_url: str) -> str:
    """The path of a gRPC method in an envelope's URL. Raises ValueError for what is none."""
    path = urlsplit(envelope_url).path or "/"
    if not _PLAIN.fullmatch(path):
        raise ValueError("the name of a gRPC method is plain ASCII")
    return path
