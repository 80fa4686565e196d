"""The primary of a Redis that Sentinels watch: its URL, and where it is now."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from redis.asyncio.sentinel import MasterNotFoundError, Sentinel

from pocket.redis_store.node_addresses import Address, format_address, format_addresses, parse_addresses
from pocket.runtime.own_authorities import redis_options
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


@dataclass(frozen=True, slots=True)
class NamedPrimary:
    """The primary that one Sentinel names.

    The configuration epoch grows with each fail-over.
    """

    address: Address
    epoch: int


def chosen(named: Sequence[NamedPrimary]) -> Address | None:
    """Return the primary that most Sentinels name, None if they name none.

    Of several it is the one of the latest fail-over. A Sentinel that is cut off from the others names a former primary,
    whose writes are lost.
    """
    votes = Counter(row.address for row in named)
    best = max(named, key=lambda row: (votes[row.address], row.epoch), default=None)
    return None if best is None else best.address


async def _named_by(sentinels: Sentinel, sentinel: Any, service: str) -> NamedPrimary:
    """Return the primary that one Sentinel names.

    Raises redis-py's MasterNotFoundError if it names none.
    """
    state = (await sentinel.sentinel_masters()).get(service)
    if not state or not sentinels.check_master_state(state, service):
        raise MasterNotFoundError(f"No master found for {service!r}")
    return NamedPrimary((str(state["ip"]), int(state["port"])), int(state.get("config-epoch", 0)))


async def _primary_by_most(sentinels: Sentinel, service: str) -> Address:
    """Query all Sentinels and return their primary.

    It returns once more than half agree or all have answered. Raises redis-py's ConnectionError if no Sentinel names
    one.
    """
    asking = {asyncio.create_task(_named_by(sentinels, sentinel, service)) for sentinel in sentinels.sentinels}
    pending, named = set(asking), list[NamedPrimary]()
    failure: BaseException | None = None
    try:
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if (error := task.exception()) is None:
                    named.append(task.result())
                else:
                    failure = error
            if any(2 * votes > len(asking) for votes in Counter(row.address for row in named).values()):
                break
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
    address = chosen(named)
    if address is None:
        raise MasterNotFoundError(f"No master found for {service!r}: {failure}") from failure
    return address


class PrimaryResolver:
    """Asks Sentinels for the primary.

    Connections that ask at the same time share one answer. An answer is trusted for half a second: connections are made
    again after a failure of the former primary.
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
                **redis_options(self._ca_file),
                "protocol": 2,
                **{name: value for name, value in credentials.items() if value is not None},
            },
        )
        async with sentinels:
            self._address = await _primary_by_most(sentinels, url.service)
        self._asked_at = self._clock()
        return self._address
