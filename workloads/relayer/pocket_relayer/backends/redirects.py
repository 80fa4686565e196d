"""Remove the backend's own address and keys from responses.

Clients see paths of the service, never keys or hosts behind it.
"""

import functools
from collections.abc import Iterable
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit

from pocket.api.services import KEY_CHARACTERS
from pocket.protocol.relays.envelope import Headers
from pocket_relayer.backends.paths import prefix_of

_REFERENCES: Final = frozenset({"Location", "Content-Location", "Refresh", "Link"})


@functools.lru_cache(maxsize=1024)
def _secrets(endpoint: str, base_path: str, token: str) -> frozenset[str]:
    """Return the parts of an endpoint's URL and the token that clients must not read."""
    target = urlsplit(endpoint)
    segments = [*target.path.split("/"), *base_path.split("/")]
    secrets = {unquote(segment) for segment in segments if len(segment) >= KEY_CHARACTERS}
    secrets |= {value if len(value) >= KEY_CHARACTERS else f"{name}={value}" for name, value in parse_qsl(target.query)}
    secrets |= {target.username or "", target.password or "", token}
    return frozenset(secret for secret in secrets if secret)


def _reveals(text: str, secrets: Iterable[str]) -> bool:
    plain = unquote(text) if "%" in text else text
    return any(secret in plain for secret in secrets)


def _public_reference(value: str, target: SplitResult, base_path: str) -> str:
    """Return a reference to the backend as a path of the service.

    Any other reference is unchanged.

    Raises ValueError for an invalid reference.
    """
    reference = urlsplit(value)
    if reference.netloc and reference.hostname != target.hostname:
        return value
    prefix, path = prefix_of(target.path, base_path), reference.path
    if prefix and (path == prefix or path.startswith(prefix + "/")):
        path = path[len(prefix) :] or "/"
    configured = {name for name, _ in parse_qsl(target.query, keep_blank_values=True)}
    query = "&".join(part for part in reference.query.split("&") if part.partition("=")[0] not in configured)
    return urlunsplit(("", "", path or "/", query, reference.fragment))


def without_endpoint(
    status: int, headers: Headers, body: bytes, endpoint: str, base_path: str, token: str = ""
) -> tuple[Headers, bytes]:
    """Return a response's headers and body without the endpoint's keys and host.

    `token` is what authenticates the relayer, which counts as a key. A field that still reveals a key is left out. So
    is the text of a redirect that repeats the address, and of an error that repeats a key: many servers name the path
    that they did not find.
    """
    secrets = _secrets(endpoint, base_path, token)
    refers = not _REFERENCES.isdisjoint(headers)
    if not secrets and not refers:
        return headers, body
    target = urlsplit(endpoint)
    keys = {secret for secret in secrets if len(secret) >= KEY_CHARACTERS}
    kept: dict[str, tuple[str, ...]] = {}
    for name, values in headers.items():
        if name in _REFERENCES:
            shown = (_public_value(name, value, target, base_path, secrets) for value in values)
            values = tuple(value for value in shown if value)  # noqa: PLW2901 - the shown ones
        elif keys:
            values = tuple(value for value in values if not _reveals(value, keys))  # noqa: PLW2901 - the shown ones
        if values:
            kept[name] = values
    hidden = {*secrets, target.netloc} if refers and status < 400 else keys
    if status >= 300 and hidden and _reveals(body.decode("utf-8", "replace"), hidden):
        body = b""
        if "Content-Length" in kept:
            kept["Content-Length"] = ("0",)
    return kept, body


def _public_value(name: str, value: str, target: SplitResult, base_path: str, secrets: Iterable[str]) -> str:
    """Return a reference as clients may see it, or an empty text."""
    try:
        seen = _public_reference(value, target, base_path) if name.endswith("Location") else value
    except ValueError:
        return ""
    return "" if _reveals(seen, secrets) or (not name.endswith("Location") and target.netloc in seen) else seen
