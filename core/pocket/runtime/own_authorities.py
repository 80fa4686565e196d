"""Trust certificate authorities alike under every version of CPython.

They are those of an owner and those of the system.
"""

import ssl
from functools import cache
from pathlib import Path
from typing import Any, Final

_STRICT: Final = ssl.VerifyFlags.VERIFY_X509_STRICT
"""Set by CPython 3.13 and later. It refuses authorities without key usage, which `openssl req -x509` makes."""


def client_context(authorities: Path) -> ssl.SSLContext:
    """Return a context that trusts only these authorities.

    It does so under every version of CPython. Raises OSError and SSLError.
    """
    return lenient(ssl.create_default_context(cafile=authorities))


def lenient(context: ssl.SSLContext) -> ssl.SSLContext:
    """Let a context trust authorities without key usage, and return it.

    Every other client trusts them.
    """
    context.verify_flags &= ~_STRICT
    return context


@cache
def system_context() -> ssl.SSLContext:
    """Return the process's context of the system's authorities.

    SSL_CERT_FILE replaces them.
    """
    return lenient(ssl.create_default_context())


def redis_options(authorities: str | None) -> dict[str, Any]:
    """Return redis-py's options of a TLS connection.

    It trusts the authorities of a file, or those of the system.
    """
    own = {"ssl_ca_certs": authorities} if authorities is not None else {}
    return own | {"ssl_exclude_verify_flags": [_STRICT]}
