"""The relayer's platform: that of every process, and connections to backends."""

from collections.abc import Callable
from dataclasses import dataclass

from pocket.platform import Platform
from pocket_relayer.backends.http_calls import Clients


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayerPlatform(Platform):
    """Platform of a worker.

    `backend_http` opens the clients of one service for a number of connections.
    """

    backend_http: Callable[[int], Clients] = Clients.open
