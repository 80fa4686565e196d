"""Registry of the configured services, replaced while relays are served.

A service that did not change keeps its connections and circuit breakers.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from itertools import islice

from pocket.api.services import ServiceSpec
from pocket.runtime.supervise import supervise
from pocket_relayer import relayer_metrics
from pocket_relayer.backends.credentials import Credentials
from pocket_relayer.backends.health import checkers
from pocket_relayer.backends.http_calls import Clients
from pocket_relayer.backends.service import ServiceBackends, close_quietly
from pocket_relayer.relayer_metrics import BackendConnections


def _count_restart() -> None:
    relayer_metrics.RESTARTS.labels("health check").inc()


class ServiceRegistry:
    """Services with their backends.

    `run` must be running for health checks, and to close backends that were replaced.
    """

    def __init__(
        self, services: Iterable[ServiceSpec], clock: Callable[[], float], credentials: Credentials | None = None,
        http: Callable[[int], Clients] = Clients.open,
    ) -> None:  # fmt: skip
        self._http = http
        self._clock = clock
        self._credentials = credentials
        self._services: Mapping[str, ServiceBackends] = {}
        self._retired: list[ServiceBackends] = []
        self._changed = asyncio.Event()
        self.max_body_bytes = 1
        """Largest body of any service in bytes, read at every request."""
        self.update(services)

    def get(self, service_id: str) -> ServiceBackends | None:
        """Return the backends of a service, or None for an unknown one."""
        return self._services.get(service_id)

    @property
    def services(self) -> list[ServiceSpec]:
        """Return all services."""
        return [backends.service for backends in self._services.values()]

    @property
    def in_flight(self) -> int:
        """Return the number of relays that wait for current and replaced backends."""
        return sum(backends.in_flight for backends in (*self._services.values(), *self._retired))

    def connections(self) -> dict[str, BackendConnections]:
        """Return the connections to backends by service."""
        return {name: backends.connections() for name, backends in self._services.items()}

    def unhealthy(self) -> dict[tuple[str, str], int]:
        """Return the number of unavailable endpoints by service and transport."""
        now = self._clock()
        return {
            (name, kind): len(pool.endpoints) - pool.healthy(now)
            for name, backends in self._services.items()
            for kind, pool in backends.pools.items()
        }

    def unhealthy_endpoints(self) -> list[dict[str, object]]:
        """Return at most a hundred unavailable endpoints with their origin and the reason."""
        rows = (row for backends in self._services.values() for row in backends.endpoints(only_unhealthy=True))
        return list(islice(rows, 100))

    def update(self, services: Iterable[ServiceSpec]) -> list[str]:
        """Apply a changed list of services and return the ids that changed.

        Running requests finish with the backends that they started with.
        """
        replacement: dict[str, ServiceBackends] = {}
        changed = []
        for service in services:
            present = self._services.get(service.id)
            if present is None or present.service != service:
                changed.append(service.id)
                replacement[service.id] = ServiceBackends(service, self._clock, self._credentials, self._http)
            else:
                replacement[service.id] = present
        gone = [backends for name, backends in self._services.items() if replacement.get(name) is not backends]
        changed += [backends.service.id for backends in gone if backends.service.id not in replacement]
        self._services = replacement
        self.max_body_bytes = max((service.max_body_bytes for service in self.services), default=1)
        self._retired += gone
        if changed:
            self._changed.set()
        return changed

    async def run(self) -> None:
        """Check endpoints, and close replaced backends once no relay uses them.

        A check that fails unexpectedly is restarted and ends no other one.
        """
        while True:
            self._changed.clear()
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(supervise("health check", checker.run, _count_restart))
                    for backends in self._services.values()
                    for checker in checkers(backends)
                ]
                while not self._changed.is_set():
                    for backends in [o for o in self._retired if not o.in_flight]:
                        self._retired.remove(backends)
                        await close_quietly(backends)
                    try:
                        async with asyncio.timeout(1.0 if self._retired else 60.0):
                            await self._changed.wait()
                    except TimeoutError:
                        continue
                for task in tasks:
                    task.cancel()

    async def close(self) -> None:
        """Close all backends."""
        for backends in [*self._services.values(), *self._retired]:
            await close_quietly(backends)
