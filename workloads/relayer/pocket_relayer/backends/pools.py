"""Endpoints of one transport: choice, circuit breaker, active health, retry budget (relay-lifecycle.md, section 4)."""

from dataclasses import dataclass, field
from typing import Final

from pocket.api.services import BackendBase

_RETRY_SHARE: Final = 0.2  # of the requests may be retried in the long run ...
_RETRY_BURST: Final = 10.0  # ... and this many at once: a failing pool is not asked twice as much


@dataclass(slots=True)
class BackendEndpoint:
    """One URL with its breaker: `threshold` failures in a row open it for `recovery` seconds (0 = for ever).

    After that one request at a time tries whether it is back. `down` is why an active check took it out.
    """

    url: str
    threshold: int
    recovery_seconds: float
    failures: int = 0
    open_since: float | None = None
    down: str = ""

    def available(self, now: float) -> bool:
        """Whether it may be asked."""
        if self.down:
            return False
        if self.open_since is None:
            return True
        return self.recovery_seconds > 0 and now - self.open_since >= self.recovery_seconds

    def taken(self, now: float) -> None:
        """A request goes there: while the breaker is open it is the only one for another recovery time."""
        if self.open_since is not None:
            self.open_since = now

    def succeeded(self) -> None:
        """Closes the breaker."""
        self.failures = 0
        self.open_since = None

    def failed(self, now: float) -> None:
        """Counts a hard failure: connection, TLS, DNS, read error or 5xx."""
        self.failures += 1
        if self.failures >= self.threshold:
            self.open_since = now


@dataclass(slots=True)
class Pool:
    """Endpoints of one service and transport."""

    backend: BackendBase
    endpoints: list[BackendEndpoint] = field(default_factory=list)
    _turn: int = 0
    _retries: float = _RETRY_BURST

    def __post_init__(self) -> None:
        self.endpoints = [
            BackendEndpoint(url, self.backend.unhealthy_threshold, self.backend.recovery_seconds)
            for url in self.backend.endpoints
        ]

    def choose(self, now: float, tried: set[str]) -> BackendEndpoint | None:
        """The next healthy endpoint that was not tried for this request."""
        strategy = self.backend.strategy or ("first_healthy" if len(self.endpoints) == 1 else "round_robin")
        order = self.endpoints
        if strategy == "round_robin":
            self._turn += 1
            start = self._turn % len(order)
            order = order[start:] + order[:start]
        if tried:
            if self._retries < 1:
                return None
        else:
            self._retries = min(_RETRY_BURST, self._retries + _RETRY_SHARE)
        chosen = next((e for e in order if e.url not in tried and e.available(now)), None)
        if chosen is not None:
            chosen.taken(now)
            if tried:
                self._retries -= 1
        return chosen

    def healthy(self, now: float) -> int:
        """Number of endpoints that may be asked."""
        return sum(endpoint.available(now) for endpoint in self.endpoints)
