"""Session hydration (sessions.md, section 4)."""

from dataclasses import dataclass

from pocket.chain.model import Application, StakedSupplier
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.session_id import (
    Candidate,
    application_active,
    config_active,
    select_suppliers,
    session_id,
    session_id_preimage,
)
from pocket_localnet.state import BlockHash, State


class HydrationError(Exception):
    """There is no such session. The text is the chain's."""


@dataclass(frozen=True, slots=True)
class HydratedSession:
    """A session with the records of the queried state."""

    header: SessionHeader
    number: int
    num_blocks: int
    application: Application
    suppliers: tuple[StakedSupplier, ...]

    def has(self, supplier: str) -> bool:
        """Return True if the supplier belongs to the session."""
        return any(s.operator_address == supplier for s in self.suppliers)


def hydrate(state: State, block_hash: BlockHash, application: str, service: str, height: int) -> HydratedSession:
    """Return the session that includes `height` (0 = latest). Raises HydrationError."""
    height = height or state.height
    if height > state.height:
        raise HydrationError(
            f"block height {height} is ahead of the last committed block height {state.height}: "
            "error during session hydration"
        )
    params = state.shared_params_at(height)
    start, end = params.session_start(height), params.session_end(height)
    app = state.applications.get(application)
    if app is None:
        raise HydrationError(
            f'could not find app with address "{application}" at height {height}: '
            "application for session not found not found "
        )
    if service not in app.service_ids:
        raise HydrationError(
            f'application "{application}" not staked for service ID "{service}": '
            "application in session not staked for requested service"
        )
    if not application_active(end, app.unstake_session_end_height, 0):
        raise HydrationError(f"application {application} is not active for the session ending at {end}")
    candidates = sorted(
        (
            Candidate(supplier.operator_address, config.activation_height)
            for supplier in state.suppliers.values()
            for config in supplier.history
            if config.service_id == service
            and config_active(config.activation_height, config.deactivation_height, height)
        ),
        key=lambda candidate: (candidate.activation_height, candidate.operator_address),
    )
    if not candidates:
        raise HydrationError(f"no suppliers found for session: could not find suppliers for service {service}")
    preimage = session_id_preimage(block_hash(start), service, application, start)
    selected = select_suppliers(preimage, candidates, state.num_suppliers_per_session)
    header = SessionHeader(application, service, session_id(preimage), start, end)
    return HydratedSession(
        header,
        params.session_number(height),
        params.num_blocks_per_session,
        app,
        tuple(state.suppliers[address] for address in selected),
    )
