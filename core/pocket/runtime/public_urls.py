"""Check the public URLs in stakes, as seen from this machine.

The checks cover names, connections and certificates.
"""

import asyncio
import contextlib
import os
import re
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from pocket.runtime.own_authorities import system_context

PORTS: Final[Mapping[str, int]] = {"http": 80, "ws": 80, "grpc": 80, "https": 443, "wss": 443, "grpcs": 443}
"""Ports of URLs without one."""
_SECURE: Final = frozenset({"https", "wss", "grpcs"})
_NOTICE: Final = timedelta(days=14)
_CONCURRENCY: Final = 8
_NOT_A_URL: Final = "not a URL that a gateway can connect to"
_END_OF_PLACE: Final = re.compile("[/?#]")


def connection_problem(error: OSError) -> str:
    """Return why a connection failed, without addresses.

    So the words are the same for each try.
    """
    if isinstance(error, socket.gaierror):
        return "its host name does not resolve"
    return os.strerror(error.errno).lower() if error.errno else "connection failed"


class PublicUrlChecker:
    """Probes each distinct URL. Problem texts are stable from probe to probe."""

    def __init__(
        self, wall_clock: Callable[[], float], *, seconds: float = 5.0, trust: ssl.SSLContext | None = None
    ) -> None:
        """Create a checker.

        `trust` holds the accepted certificate authorities, by default the machine's.
        """
        self._wall_clock = wall_clock
        self._seconds = seconds
        self._trust = trust
        self._probe_limit = asyncio.Semaphore(_CONCURRENCY)
        self._problems: dict[str, str] = {}

    async def probe(self, urls: Iterable[str]) -> None:
        """Probe all URLs. Never raises because of a URL."""
        wanted = sorted(set(urls))
        problems = await asyncio.gather(*map(self._problem, wanted))
        self._problems = dict(zip(wanted, problems, strict=True))

    def problems(self, urls: Iterable[str]) -> list[str]:
        """Return the problems of these URLs as `url: problem`.

        URLs not probed yet have none.
        """
        return [f"{_redact(url)}: {text}" for url in sorted(set(urls)) if (text := self._problems.get(url))]

    async def _problem(self, url: str) -> str:
        try:  # the chain accepts texts as URLs that are none
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port or PORTS.get(parts.scheme, 0)
        except ValueError:
            host, port = None, 0
        if not host or not port:
            return _NOT_A_URL
        try:
            async with self._probe_limit, asyncio.timeout(self._seconds):
                return await self._reach(host, port, secure=parts.scheme in _SECURE)
        except TimeoutError:
            return f"no connection within {self._seconds:g} s"
        except socket.gaierror as error:
            return connection_problem(error)
        except ssl.SSLCertVerificationError as error:
            return f"its certificate is invalid: {error.verify_message}"
        except ssl.SSLError:
            return "it does not speak TLS"
        except OSError as error:
            return f"it cannot be reached ({connection_problem(error)})"
        except ValueError:  # a host name that no resolver takes
            return _NOT_A_URL

    async def _reach(self, host: str, port: int, *, secure: bool) -> str:
        if secure and self._trust is None:
            self._trust = system_context()
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
        return f"its certificate expires on {ends:%Y-%m-%d}"


def _redact(url: str) -> str:
    """Return a URL without user, password and query, which statuses need not repeat."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{_END_OF_PLACE.split(rest, 1)[0].rpartition('@')[2]}"
