"""Find credentials of backends in headers and URLs.

The Go relay miner allows them there.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from pocket.api.services import KEY_CHARACTERS

_CREDENTIAL: Final = re.compile(
    r"(proxy-)?authorization|cookie|(.*[-_])?(api-?key|key|token|secret|password|signature|auth|jwt)", re.IGNORECASE
)
"""Names of headers that usually carry a credential."""


def credential_headers(headers: Mapping[str, str]) -> list[str]:
    """Return the names of headers that look like credentials, `Authorization` first."""
    credentials = [name for name in headers if _CREDENTIAL.fullmatch(name)]
    return sorted(credentials, key=lambda name: name.lower() != "authorization")


def may_hold_keys(urls: Sequence[str], base_path: str = "") -> bool:
    """Return True if a path or a query of URLs may hold a key."""
    for url in urls:
        parts = urlsplit(url)
        segments = [*parts.path.split("/"), *base_path.split("/")]
        if any(len(segment) >= KEY_CHARACTERS for segment in segments) or parse_qsl(parts.query):
            return True
    return False
