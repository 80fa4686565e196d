"""Admit relays: gather the context of their session, then authorize them.

Source: relay-lifecycle.md, section 5.
"""

import asyncio
from collections.abc import Callable, Hashable, Mapping

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.api.services import RPC_NUMBERS
from pocket.chain.model import StakedSupplier
from pocket.protocol.relays.messages import RelayRequest, SessionHeader
from pocket.runtime.moment_memo import MomentMemo
from pocket_relayer import relayer_metrics
from pocket_relayer.limits.rejection import Rejected, RejectionReason
from pocket_relayer.pipeline.authorization import Admitted, authorize
from pocket_relayer.pipeline.fair_queue import QUANTUM, FairQueue
from pocket_relayer.pipeline.session_context import ChainQueries, SessionContexts

_LOG: FilteringBoundLogger = structlog.get_logger()
_HASHED_IN_PLACE = 256 * 1024  # bytes of a payload up to which no thread is used
_MAX_WARNINGS = 4096


class Admission:
    """Admits relays in the order of the protocol."""

    def __init__(
        self,
        chain: ChainQueries,
        height: Callable[[], int],
        clock: Callable[[], float],
        limits: Callable[[], Mapping[str, frozenset[str]]] = dict,
        generation: Callable[[], int] = lambda: 0,
        moment: Callable[[], Hashable] | None = None,
    ) -> None:
        self._contexts = SessionContexts(chain, height, clock, generation)
        self.background = self._contexts.background
        """Chain queries that no relay waits for."""
        self._limits = limits
        self._undeclared: set[tuple[str, str, str]] = set()
        self._verifications = FairQueue(clock)
        self._checked: MomentMemo[tuple[str, str, int, str], bool] = MomentMemo(moment)

    async def check_supplier(self, request: RelayRequest, header: SessionHeader, rpc_type: str = "") -> None:
        """Check that the supplier may serve this session.

        An unknown chain state or a single node's answer never takes a supplier out of service. Raises Rejected.
        """
        limited = self._limits().get(request.supplier_operator_address)
        if limited is not None and header.service_id not in limited:
            raise Rejected(
                RejectionReason.WRONG_SERVICE, f"the supplier is not offered for service {header.service_id} here"
            )
        now = self._checked.now()
        key = (request.supplier_operator_address, header.service_id, header.session_end_block_height, rpc_type)
        if self._checked.get(key):
            return
        supplier = await self._contexts.serving_supplier(header, request.supplier_operator_address)
        if supplier is None:
            return
        if _declares(supplier, header.service_id, rpc_type):
            self._checked.put(now, key, True)
        else:
            self._count_undeclared(supplier, header.service_id, rpc_type)

    def _count_undeclared(self, supplier: StakedSupplier, service_id: str, rpc_type: str) -> None:
        """Count relays over a transport that the stake does not declare, and warn once.

        They are served.
        """
        relayer_metrics.UNDECLARED.labels(service_id, rpc_type).inc()
        undeclared = (supplier.operator_address, service_id, rpc_type)
        if undeclared not in self._undeclared and len(self._undeclared) < _MAX_WARNINGS:
            self._undeclared.add(undeclared)
            _LOG.warning(
                "relay for a service that the supplier's stake does not declare",
                supplier=undeclared[0],
                service=undeclared[1],
                rpc_type=undeclared[2],
            )

    async def validate(
        self, request: RelayRequest, header: SessionHeader, address: str = "", *, confirm: bool = True
    ) -> Admitted:
        """Gather the session's context and authorize the request.

        `address` is the client's, for its budget of fruitless queries and its share of CPU time. With `confirm` every
        node is queried before a request is refused. Raises Rejected.
        """
        context = await self._contexts.of(header, address)
        large = len(request.payload) > _HASHED_IN_PLACE
        message_hash = await asyncio.to_thread(request.signable_hash) if large else request.signable_hash()
        cost = verification_cost(context.ring.size)
        await self._verifications.turn(address, cost, header.application_address)
        try:
            return authorize(request, header, message_hash, context)
        except Rejected:
            corrected = await self._contexts.corrected(header, context, address) if confirm else None
            if corrected is None:
                raise
        return authorize(request, header, message_hash, corrected)


def verification_cost(members: int) -> float:
    """Return the cost of verifying a ring signature, in the fair queue's unit.

    The unit is the cost of a ring of two members.
    """
    return max(QUANTUM, QUANTUM * members / 2)


def _declares(supplier: StakedSupplier, service_id: str, rpc_type: str) -> bool:
    """Return whether the stake declares a transport of a service, or none at all."""
    number = RPC_NUMBERS.get(rpc_type)
    declared = {kind for config in supplier.history if config.service_id == service_id for kind, _ in config.endpoints}
    return number is None or not declared or number in declared
