"""The services on offer, replaced while relays are served: what did not change keeps its connections and breakers."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from itertools import islice

from pocket.api.services import ServiceSpec
from pocket_relayer.backends.credentials import Credentials
from pocket_relayer.backends.health import checkers
from pocket_relayer.backends.http_calls import Clients
from pocket_relayer.backends.service import ServiceBackends, close_quietly


class ServiceRegistry:
    """Services with their backends; `run` must be running for health checks and for closing what was replaced."""

    def __init__(
        self, services: Iterable[ServiceSpec], clock: Callable[[], float], credentials: Credentials | None = None,
        http: Callable[[int], Clients] = Clients.open,
    ) -> None:  # fmt: skip
        self._http = http
        self._clock = clock
        self._credentials = credentials
        self._offers: Mapping[str, ServiceBackends] = {}
        self._retired: list[ServiceBackends] = []
        self._changed = asyncio.Event()
        self.max_body_bytes = 1
        """Largest body of any service; asked for at every request."""
        self.update(services)

    def get(self, service_id: str) -> ServiceBackends | None:
        """What a service is served with."""
        return self._offers.get(service_id)

    @property
    def services(self) -> list[ServiceSpec]:
        """All services."""
        return [offer.service for offer in self._offers.values()]

    @property
    def in_flight(self) -> int:
        """Relays that wait for a backend, of replaced ones too."""
        return sum(offer.in_flight for offer in (*self._offers.values(), *self._retired))

    def unhealthy(self) -> dict[tuple[str, str], int]:
        """Endpoints that are not asked at the moment, by service and transport."""
        now = self._clock()
        return {
            (name, kind): len(pool.endpoints) - pool.healthy(now)
            for name, offer in self._offers.items()
            for kind, pool in offer.pools.items()
        }

    def unhealthy_endpoints(self) -> list[dict[str, object]]:
        """Endpoints that are not asked at the moment, by place and with the reason; a hundred at most."""
        rows = (row for offer in self._offers.values() for row in offer.endpoints() if not row["healthy"])
        return list(islice(rows, 100))

    def update(self, services: Iterable[ServiceSpec]) -> list[str]:
        """Takes up a changed list; returns the ids that changed. Running requests end with what they began with."""
        offers: dict[str, ServiceBackends] = {}
        changed = []
        for service in services:
            present = self._offers.get(service.id)
            if present is None or present.service != service:
                changed.append(service.id)
                offers[service.id] = ServiceBackends(service, self._clock, self._credentials, self._http)
            else:
                offers[service.id] = present
        gone = [offer for name, offer in self._offers.items() if offers.get(name) is not offer]
        changed += [offer.service.id for offer in gone if offer.service.id not in offers]
        self._offers = offers
        self.max_body_bytes = max((service.max_body_bytes for service in self.services), default=1)
        self._retired += gone
        if changed:
            self._changed.set()
        return changed

    async def run(self) -> None:
        """Checks endpoints, and closes replaced backends once nobody uses them."""
        while True:
            self._changed.clear()
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(checker.run()) for offer in self._offers.values() for checker in checkers(offer)
                ]
                while not self._changed.is_set():
                    for offer in [o for o in self._retired if not o.in_flight]:
                        self._retired.remove(offer)
                        await close_quietly(offer)
                    try:
                        async with asyncio.timeout(1.0 if self._retired else 60.0):
                            await self._changed.wait()
                    except TimeoutError:
                        continue
                for task in tasks:
                    task.cancel()

    async def close(self) -> None:
        """Closes everything."""
        for offer in [*self._offers.values(), *self._retired]:
            await close_quietly(offer)
