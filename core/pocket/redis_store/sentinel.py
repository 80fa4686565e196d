"""The primary of a Redis that Sentinels watch: its URL, and where it is now."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from redis.asyncio.sentinel import MasterNotFoundError, Sentinel

from pocket.redis_store.node_addresses import Address, format_address, format_addresses, parse_addresses
from pocket.runtime.single_flight import SingleFlight

_SCHEMES = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
_SENTINEL_PORT = 26379
_TRUSTED_SECONDS = 0.5


@dataclass(frozen=True, slots=True, repr=False)
class SentinelUrl:
    """A parsed `redis+sentinel://[user:password@]host[:port],.../service[/database]`.

    rediss+sentinel:// uses TLS to the Sentinels and to the primary. The query may hold `sentinel_username` and
    `sentinel_password`, for Sentinels that have credentials of their own.
    """

    scheme: str
    credentials: str
    sentinels: tuple[Address, ...]
    service: str
    database: int
    sentinel_username: str | None
    sentinel_password: str | None

    @classmethod
    def parse(cls, url: str) -> "SentinelUrl | None":
        """Return the parts of a Sentinel URL, None for a URL of another kind.

        Raises ValueError for an invalid one.
        """
        parts = urlsplit(url)
        scheme = _SCHEMES.get(parts.scheme)
        if scheme is None:
            return None
        credentials, _, hosts = parts.netloc.rpartition("@")
        path = re.fullmatch(r"/([A-Za-z0-9._-]+)(?:/([0-9]+))?", parts.path)
        if path is None or parts.fragment:
            raise ValueError("a Sentinel URL names its service: .../service or .../service/database")
        query = parse_qs(parts.query, strict_parsing=bool(parts.query))
        if not query.keys() <= {"sentinel_username", "sentinel_password"}:
            raise ValueError("unknown parameter in a Sentinel URL")
        addresses = parse_addresses(hosts, _SENTINEL_PORT)
        username, password = (query.get(f"sentinel_{name}", [None])[-1] for name in ("username", "password"))
        return cls(scheme, credentials, addresses, path[1], int(path[2] or 0), username, password)

    @property
    def redis_url(self) -> str:
        """The URL of the primary, with the first Sentinel in the place of its address."""
        at = f"{self.credentials}@" if self.credentials else ""
        return f"{self.scheme}://{at}{format_address(self.sentinels[0])}/{self.database}"

    @property
    def redacted(self) -> str:
        """The URL without credentials."""
        return f"{self.scheme}+sentinel://{format_addresses(self.sentinels)}/{self.service}/{self.database}"


class PrimaryResolver:
    """Asks Sentinels where the primary is, once for all connections that want to know at the same time.

    An answer is trusted for half a second: connections are made again after a failure of the former primary.
    """

    def __init__(
        self, url: SentinelUrl, timeout_seconds: float, clock: Callable[[], float] = time.monotonic,
        ca_file: str | None = None,
    ) -> None:  # fmt: skip
        self._url = url
        self._ca_file = ca_file
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._asking = SingleFlight()
        self._address: Address | None = None
        self._asked_at = float("-inf")

    async def address(self) -> Address:
        """Return host and port of the primary.

        Raises redis-py's ConnectionError if no Sentinel knows it.
        """
        if self._address is not None and self._clock() - self._asked_at < _TRUSTED_SECONDS:
            return self._address
        return await self._asking.do(self._url.service, self._ask)

    async def _ask(self) -> Address:
        url = self._url
        credentials = {"username": url.sentinel_username, "password": url.sentinel_password}
        sentinels = Sentinel(  # type: ignore[no-untyped-call]  # redis-py does not annotate it
            url.sentinels,
            sentinel_kwargs={
                "socket_timeout": self._timeout_seconds,
                "socket_connect_timeout": self._timeout_seconds,
                "ssl": url.scheme == "rediss",
                **({"ssl_ca_certs": self._ca_file} if self._ca_file is not None else {}),
                "protocol": 2,
                **{name: value for name, value in credentials.items() if value is not None},
            },
        )
        async with sentinels:
            try:
                host, port = await sentinels.discover_master(url.service)
            except MasterNotFoundError:  # its text has the representation of the clients
                raise MasterNotFoundError(
                    f"no Sentinel of {format_addresses(url.sentinels)} answered with a primary for {url.service!r}"
                ) from None
        self._address, self._asked_at = (str(host), int(port)), self._clock()
        return self._address
