"""What a worker runs on, beside what every process does: connections to backends."""

from collections.abc import Callable
from dataclasses import dataclass

import aiohttp

from ledger.platform import Platform
from relayer.backends.http import new_session


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayerPlatform(Platform):
    """`backend_http` makes one service's pool of so many connections; the defaults are the machine's own."""

    backend_http: Callable[[int], aiohttp.ClientSession] = new_session
