"""What a worker runs on, beside what every process does: connections to backends."""

from collections.abc import Callable
from dataclasses import dataclass

from ledger.platform import Platform
from relayer.backends.http import Clients


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayerPlatform(Platform):
    """`backend_http` makes one service's pool of so many connections; the defaults are the machine's own."""

    backend_http: Callable[[int], Clients] = Clients.open
