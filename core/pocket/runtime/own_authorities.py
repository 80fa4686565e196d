"""Trust certificate authorities that the owner of an installation configured."""

import ssl
from pathlib import Path
from typing import Any, Final

NOT_REQUIRED: Final = (ssl.VerifyFlags.VERIFY_X509_STRICT,)
"""Flags that CPython 3.13 and later set. They refuse authorities without key usage, which `openssl req -x509` makes."""


def client_context(authorities: Path) -> ssl.SSLContext:
    """Return a context that trusts only these authorities, under every version of CPython. Raises OSError, SSLError."""
    context = ssl.create_default_context(cafile=authorities)
    for flag in NOT_REQUIRED:
        context.verify_flags &= ~flag
    return context


def redis_options(authorities: str) -> dict[str, Any]:
    """Return redis-py's options of a connection that trusts only these authorities."""
    return {"ssl_ca_certs": authorities, "ssl_exclude_verify_flags": list(NOT_REQUIRED)}
