"""Trust the authorities of SSL_CERT_FILE over gRPC, too.

gRPC knows only its own list of public ones.
"""

import os
from functools import cache
from pathlib import Path

import grpc

from pocket.errors import ConfigurationError


def channel_credentials() -> grpc.ChannelCredentials:
    """Return TLS credentials with the authorities of the process's HTTPS.

    Raises ConfigurationError if SSL_CERT_FILE cannot be read.
    """
    name = os.environ.get("SSL_CERT_FILE")
    return grpc.ssl_channel_credentials(_authorities(name) if name else None)


@cache
def _authorities(name: str) -> bytes:
    """Return the content of the file, which is read once.

    Each broadcast opens channels on the event loop.
    """
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"SSL_CERT_FILE={name}: {error.strerror}. Name a file of PEM certificates.") from None
