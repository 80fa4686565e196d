"""Whether the public URLs of the stakes lead anywhere: names, connections, certificates. Seen from this machine."""

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

PORTS: Final[Mapping[str, int]] = {"http": 80, "ws": 80, "grpc": 80, "https": 443, "wss": 443, "grpcs": 443}
"""Of URLs that name none."""
_SECURE: Final = frozenset({"https", "wss", "grpcs"})
_NOTICE: Final = timedelta(days=14)
_AT_ONCE: Final = 8
_END_OF_PLACE: Final = re.compile("[/?#]")


class PublicUrlChecker:
    """Looks at URLs, each once however many suppliers declare it; texts hold nothing that changes from look to look."""

    def __init__(
        self, wall_clock: Callable[[], float], *, seconds: float = 5.0, trust: ssl.SSLContext | None = None
    ) -> None:
        """`trust`: the authorities whose certificates count; the machine's by default."""
        self._wall_clock = wall_clock
        self._seconds = seconds
        self._trust = trust
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._problems: dict[str, str] = {}

    async def look(self, urls: Iterable[str]) -> None:
        """One look at all of them; never raises for a URL's sake."""
        wanted = sorted(set(urls))
        found = await asyncio.gather(*map(self._problem, wanted))
        self._problems = dict(zip(wanted, found, strict=True))

    def problems(self, urls: Iterable[str]) -> list[str]:
        """What is wrong with these, as `url: what`; what was not looked at yet is fine."""
        return [f"{_shown(url)}: {text}" for url in sorted(set(urls)) if (text := self._problems.get(url))]

    async def _problem(self, url: str) -> str:
        try:  # what the chain takes as a URL need not be one here
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port or PORTS.get(parts.scheme, 0)
        except ValueError:
            host, port = None, 0
        if not host or not port:
            return "it is no address that a gateway could use"
        try:
            async with self._gate, asyncio.timeout(self._seconds):
                return await self._reach(host, port, secure=parts.scheme in _SECURE)
        except TimeoutError:
            return f"no connection within {self._seconds:g} s"
        except socket.gaierror:
            return "its name does not resolve"
        except ssl.SSLCertVerificationError as error:
            return f"its certificate does not hold: {error.verify_message}"
        except ssl.SSLError:
            return "it does not speak TLS"
        except (OSError, ValueError) as error:
            return f"it cannot be reached ({type(error).__name__})"

    async def _reach(self, host: str, port: int, *, secure: bool) -> str:
        if secure and self._trust is None:
            self._trust = ssl.create_default_context()
        context = self._trust if secure else None
        _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host if secure else None)
        try:
            certificate = writer.get_extra_info("peercert") if secure else None
            return self._expiry(certificate) if certificate else ""
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _expiry(self, certificate: Mapping[str, Any]) -> str:
        ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)
        if ends - datetime.fromtimestamp(self._wall_clock(), UTC) > _NOTICE:
            return ""
        return f"its certificate ends on {ends:%Y-%m-%d}"


def _shown(url: str) -> str:
    """Without user, password, query: stakes are public, statuses need not repeat what somebody put there by mistake."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{_END_OF_PLACE.split(rest, 1)[0].rpartition('@')[2]}"
