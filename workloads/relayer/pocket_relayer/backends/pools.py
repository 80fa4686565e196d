"""Endpoints of one transport: choice, circuit breaker and retry budget.

Source: relay-lifecycle.md, section 4.
"""

from dataclasses import dataclass, field
from typing import Final

from pocket.api.services import BackendBase

_RETRY_SHARE: Final = 0.2  # share of requests that may be retried in the long run ...
_RETRY_BURST: Final = 10.0  # ... and retries at once, so that a failing pool gets little extra load
_SERVED_SECONDS: Final = 30.0  # for which a served client shows that an endpoint works for others
_SERVED_CLIENTS: Final = 64  # that are remembered


@dataclass(slots=True)
class BackendEndpoint:
    """One URL with its circuit breaker.

    `threshold` consecutive failures open the breaker for `recovery_seconds` (0 = permanently). Afterwards it is half
    open: one request at a time probes the endpoint. `failed_check` is why an active check took the endpoint out.

    A client may send requests that any endpoint answers with an error. So errors in response to one client alone do not
    open the breaker while the endpoint serves others.
    """

    url: str
    threshold: int
    recovery_seconds: float
    failures: int = 0
    open_since: float | None = None
    failed_check: str = ""
    _failed_for: set[str] = field(default_factory=set)
    """Clients of the consecutive failures, with an empty text for a failure that no request causes."""
    _served: set[str] = field(default_factory=set)
    """Clients that were served since `_served_since` ..."""
    _served_before: set[str] = field(default_factory=set)
    """... and before it."""
    _served_since: float = 0.0

    def available(self, now: float) -> bool:
        """Return True if the endpoint may be called."""
        if self.failed_check:
            return False
        if self.open_since is None:
            return True
        return self.recovery_seconds > 0 and now - self.open_since >= self.recovery_seconds

    def taken(self, now: float) -> None:
        """Note a request, of which a half-open breaker admits one per recovery time."""
        if self.open_since is not None:
            self.open_since = now

    def succeeded(self, client: str = "") -> None:
        """Close the breaker. `client` was served, empty if there is none."""
        self.failures = 0
        self.open_since = None
        if self._failed_for:
            self._failed_for.clear()
        if client and client not in self._served and len(self._served) < _SERVED_CLIENTS:
            self._served.add(client)

    def failed(self, now: float, client: str = "") -> None:
        """Count a hard failure: connection, TLS, DNS, read error or 5xx.

        `client` sent the request that was answered with 5xx. It is empty for failures that no request causes.
        """
        self.failures += 1
        if len(self._failed_for) < 2:
            self._failed_for.add(client)
        if self.failures >= self.threshold and not self._fails_for_one_client(now):
            self.open_since = now

    def _fails_for_one_client(self, now: float) -> bool:
        """Return True if the last failures are responses to one client.

        Others are served meanwhile.
        """
        if now - self._served_since > _SERVED_SECONDS:
            self._served_before, self._served, self._served_since = self._served, set(), now
        if "" in self._failed_for or len(self._failed_for) > 1:
            return False
        return not self._failed_for >= (self._served | self._served_before)


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
        """Return the next available endpoint that was not tried for this request, or None."""
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
        """Return the number of available endpoints."""
        return sum(endpoint.available(now) for endpoint in self.endpoints)

    def available(self, now: float) -> bool:
        """Return True if an endpoint is available."""
        for endpoint in self.endpoints:  # noqa: SIM110 - a generator for any() costs more than the check
            if endpoint.available(now):
                return True
        return False
