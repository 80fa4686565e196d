"""The URL a backend is asked with (relay-lifecycle.md, section 4)."""

import posixpath
from urllib.parse import urlsplit


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
    """Scheme and host of the endpoint, merged path, both queries. Only path and query of the envelope are used."""
    target, wanted = urlsplit(endpoint), urlsplit(envelope_url)
    path = merge_path(target.path, base_path, wanted.path)
    query = "&".join(part for part in (target.query, wanted.query) if part)
    return f"{target.scheme}://{target.netloc}{path}" + (f"?{query}" if query else "")
