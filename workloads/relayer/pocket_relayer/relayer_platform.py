"""What a worker runs on, beside what every process does: connections to backends."""

from collections.abc import Callable
from dataclasses import dataclass

from pocket.platform import Platform
from pocket_relayer.backends.http_calls import Clients


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayerPlatform(Platform):
    """`backend_http` makes one service's pool of so many connections; the defaults are the machine's own."""

    backend_http: Callable[[int], Clients] = Clients.open
