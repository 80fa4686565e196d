"""Trust certificate authorities that the owner of an installation configured."""

import ssl
from pathlib import Path
from typing import Any, Final

_STRICT: Final = ssl.VerifyFlags.VERIFY_X509_STRICT
"""Set by CPython 3.13 and later. It refuses authorities without key usage, which `openssl req -x509` makes."""


def client_context(authorities: Path) -> ssl.SSLContext:
    """Return a context that trusts only these authorities, under every version of CPython. Raises OSError, SSLError."""
    return lenient(ssl.create_default_context(cafile=authorities))


def lenient(context: ssl.SSLContext) -> ssl.SSLContext:
    """Let a context trust authorities without key usage, as every other client does, and return it."""
    context.verify_flags &= ~_STRICT
    return context


def redis_options(authorities: str) -> dict[str, Any]:
    """Return redis-py's options of a connection that trusts the authorities of a file."""
    return {"ssl_ca_certs": authorities, "ssl_exclude_verify_flags": [_STRICT]}
