"""Convert the URLs of the Go relay miner, which may lack a scheme or hold a login."""

from collections.abc import Sequence
from urllib.parse import SplitResult, unquote, urlsplit

from pocket.api.base import ManifestError

Login = tuple[str, str]


def split(text: str) -> SplitResult:
    """Return the parts of a URL, also of host:port without a scheme.

    Raises ManifestError, which does not quote a login.
    """
    try:
        parts = urlsplit(text if "//" in text else f"//{text}")
        _ = parts.port
    except ValueError:
        shown = "the value" if "@" in text else repr(text)
        raise ManifestError(f"{shown} is not a URL: write for example http://host:port") from None
    return parts


def is_loopback(url: str) -> bool:
    """Return True if a URL names the machine on which it is used.

    Raises ManifestError.
    """
    host = split(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def login_of(url: str) -> Login | None:
    """Return user and password in a URL. Raises ManifestError."""
    parts = split(url)
    if parts.username is None and parts.password is None:
        return None
    return unquote(parts.username or ""), unquote(parts.password or "")


def without_logins(urls: Sequence[str]) -> tuple[list[str], Login | None]:
    """Return the URLs of one backend without their login, and the login.

    Raises ManifestError if they differ in it: a login must not reach the other endpoints.
    """
    logins = {login_of(url) for url in urls}
    if len(logins) > 1:
        raise ManifestError("the endpoints have different logins, and a backend has one: keep those of one login")
    login = next(iter(logins), None)
    return [url if login is None else _without_login(url) for url in urls], login


def _without_login(url: str) -> str:
    scheme, slashes, rest = url.rpartition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{host.rpartition('@')[2]}{slash}{path}"


def grpc_url(text: str, *, insecure: bool) -> str:
    """Return the URL of a gRPC server.

    It is encrypted unless its scheme or `insecure` is against it.
    """
    parts = split(text)
    plain = parts.scheme in ("grpc", "http") or (insecure and parts.scheme not in ("grpcs", "https"))
    return f"{'grpc' if plain else 'grpcs'}://{parts.netloc}"


def rpc_url(text: str) -> str:
    """Return the URL of a CometBFT RPC, also of the form tcp://host:port."""
    parts = split(text)
    scheme = {"": "http", "tcp": "http"}.get(parts.scheme, parts.scheme)
    return f"{scheme}://{parts.netloc}{parts.path}".rstrip("/")


def backend_url(text: str, kind: str) -> str:
    """Return the URL of a backend with the scheme of its transport.

    Raises ManifestError.
    """
    if not text:
        raise ManifestError(f"a {kind} backend has neither url nor urls")
    if kind == "grpc":
        return grpc_url(text, insecure=True)
    default = "ws" if kind == "webSocket" else "http"
    if "//" not in text:
        return f"{default}://{text}"
    scheme, _, rest = text.partition("://")
    if kind == "webSocket":
        scheme = {"http": "ws", "https": "wss"}.get(scheme, scheme)
    return f"{scheme}://{rest}"
