"""The configuration of a supplier that is in force from the next session on."""

from collections.abc import Iterable

from pocket.chain.model import ServiceConfig, StakedSupplier
from pocket.protocol.sessions.windows import SharedParams
from pocket.protocol.transactions.staking import Endpoint, StakedService


def next_session_start(shared: SharedParams, height: int) -> int:
    """Return the first height at which a message of the block after `height` serves."""
    return shared.session_end(height + 1) + 1


def effective_services(supplier: StakedSupplier, shared: SharedParams, height: int) -> tuple[StakedService, ...]:
    """Return the services that are in force from the next session on.

    Pending ones count, closing ones do not.
    A service is listed twice while it is being closed, so its id is no key of the history.
    """
    start = shared.session_end(height) + 1
    return canonical(
        _service(row)
        for row in supplier.history
        if row.activation_height <= start and (not row.deactivation_height or row.deactivation_height > start)
    )


def canonical(services: Iterable[StakedService]) -> tuple[StakedService, ...]:
    """Return services sorted by id, with sorted endpoints and shares."""
    rows = [StakedService(s.service_id, tuple(sorted(s.endpoints)), tuple(sorted(s.revenue_share))) for s in services]
    return tuple(sorted(rows, key=lambda s: (s.service_id, s.endpoints, s.revenue_share)))


def _service(row: ServiceConfig) -> StakedService:
    options = row.options or ((),) * len(row.endpoints)
    endpoints = tuple(
        Endpoint(url, rpc_type, chosen) for (rpc_type, url), chosen in zip(row.endpoints, options, strict=True)
    )
    return StakedService(row.service_id, endpoints, row.revenue_share)
