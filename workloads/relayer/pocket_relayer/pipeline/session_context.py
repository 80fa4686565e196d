"""Gather the chain's data on a relay's session: cached, coalesced and limited.

Source: relay-lifecycle.md, section 5.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

import structlog
from cachetools import LRUCache
from structlog.typing import FilteringBoundLogger

from pocket.chain.agreement import (
    ConfirmableChain,
    NodesDisagree,
    confirm_account,
    confirm_application,
    confirm_params,
    confirm_session,
    confirm_supplier,
)
from pocket.chain.model import Account, Application, Difficulty, Session, StakedSupplier
from pocket.chain.ring_queries import query_ring
from pocket.errors import ChainError, ChainQueryRejected, DecodingError, NotFound
from pocket.protocol.crypto.ring import ExpectedRing
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.rings import PLACEHOLDER_ADDRESS, ring_addresses
from pocket.protocol.sessions.windows import SharedParams, Windows
from pocket.runtime.bounded_dict import BoundedDict
from pocket.runtime.single_flight import SingleFlight
from pocket_relayer.limits.rejection import Rejected, RejectionReason
from pocket_relayer.pipeline.agreed_targets import AgreedTargets
from pocket_relayer.pipeline.authorization import SessionContext, check_session, supplier_rejection
from pocket_relayer.pipeline.background_queries import BackgroundQueries
from pocket_relayer.pipeline.cold_queries import ColdQueryBudget, NegativeCache
from pocket_relayer.pipeline.staked_applications import ApplicationList, StakedApplications

_LOG: FilteringBoundLogger = structlog.get_logger()
T = TypeVar("T")
_RingKey = tuple[str, int]
"""Application address and session end height."""
_SessionKey = tuple[str, str, int]
"""Application address, service id and session start height."""
_SessionRow = tuple[Session, bytes, Windows]
"""Session, target hash and windows, by the parameters at the session's start."""
_RING_SECONDS = 30.0
_RING_WAIT_SECONDS = 1.0  # for a new ring while an older one is known
_RING_RETRY_SECONDS = 5.0  # after which a ring that could not be renewed is queried again
_RINGS = 4096
_CONCURRENT_QUERIES = 32
_MAX_QUERIES = 1024  # running and waiting queries for sessions and rings
_CONCURRENT_CONFIRMATIONS = 4
_MAX_CONFIRMATIONS = 64  # running and waiting


class ChainQueries(ConfirmableChain, ApplicationList, Protocol):
    """Chain queries of admission, implemented by pocket.chain.client.ChainClient."""

    async def session(self, application_address: str, service_id: str, height: int) -> Session:
        """Return the session of an application and service at a height."""

    async def shared_params(self, height: int = 0) -> SharedParams:
        """Return the shared parameters at a height, 0 for the latest."""

    async def application(self, address: str) -> Application:
        """Return an application."""

    async def account(self, address: str) -> Account:
        """Return an account."""

    async def supplier(self, operator_address: str) -> StakedSupplier:
        """Return a staked supplier."""

    async def compute_units_per_relay(self, service_id: str, height: int) -> int:
        """Return the compute units of one relay at a height."""

    async def difficulty(self, service_id: str, height: int) -> Difficulty:
        """Return the relay mining difficulty at a height."""


def _key_of(header: SessionHeader) -> _SessionKey:
    return header.application_address, header.service_id, header.session_start_block_height


def _grid_rejection(header: SessionHeader, grid: SharedParams, following: int, height: int) -> Rejected | None:
    """Return why the heights belong to no session, or to one that is over, or None.

    `following` is the start of the next session, which later parameters may describe.
    """
    start, end = header.session_start_block_height, header.session_end_block_height
    if start == following or start < max(1, grid.session_grid_anchor_height):
        return None
    if (start, end) != (grid.session_start(start), grid.session_end(start)):
        return Rejected(RejectionReason.SESSION_MISMATCH, "the session heights are not those of a session")
    if Windows.after(end, grid).grace_elapsed(height):
        return Rejected(RejectionReason.SESSION_EXPIRED, "the session and its grace period are over")
    return None


class SessionContexts:
    """Reads sessions, rings and suppliers for one worker.

    Chain data is cached by the session's own heights.
    """

    def __init__(
        self,
        chain: ChainQueries,
        height: Callable[[], int],
        clock: Callable[[], float],
        generation: Callable[[], int] = lambda: 0,
    ) -> None:
        self._chain = chain
        self._generation = generation
        self._height = height
        self._clock = clock
        self._query_limit = asyncio.Semaphore(_CONCURRENT_QUERIES)
        self._single_flight = SingleFlight()
        self._rings: BoundedDict[_RingKey, tuple[float, int, ExpectedRing]] = BoundedDict(_RINGS)
        self._sessions: BoundedDict[_SessionKey, _SessionRow] = BoundedDict(_RINGS)
        self._confirmation_limit = asyncio.Semaphore(_CONCURRENT_CONFIRMATIONS)
        self._confirming = SingleFlight()
        self._confirmations: LRUCache[_SessionKey | _RingKey | str, tuple[int, object]] = LRUCache(_RINGS)
        self.background = BackgroundQueries()
        self._targets = AgreedTargets(chain, height, self.background)
        self._grid: tuple[int, SharedParams, int] | None = None
        self._negative_cache: NegativeCache[_SessionKey] = NegativeCache(height)
        self._budget = ColdQueryBudget(
            clock, "this address queried too many sessions that do not exist", burst=64.0, per_second=2.0
        )
        self._existing: BoundedDict[tuple[str, str], None] = BoundedDict(_RINGS)
        """Application and service of sessions that the chain stated. Their next session is queried in any case."""
        self._staked = StakedApplications(chain, clock, self.background)
        self._confirmation_budget = ColdQueryBudget(
            clock, "this address sent too many relays that all chain nodes refuse", burst=16.0, per_second=1.0
        )

    async def serving_supplier(self, header: SessionHeader, address: str) -> StakedSupplier | None:
        """Return the supplier that may serve a session.

        Returns None while the chain does not state its record. A record that refuses the session is queried of every
        node first. Raises Rejected.
        """
        supplier = await self.supplier(address)
        if supplier is None or supplier_rejection(supplier, header, self._height()) is None:
            return supplier
        supplier = await self._corrected_supplier(supplier)
        if supplier is not None and (rejected := supplier_rejection(supplier, header, self._height())) is not None:
            raise rejected
        return supplier

    async def supplier(self, address: str) -> StakedSupplier | None:
        """Return a staked supplier, or None while the chain is unavailable.

        Raises Rejected if it is not staked.
        """
        try:
            return await self._chain.supplier(address)
        except NotFound as error:
            if error.unanswered:
                return None
            raise Rejected(RejectionReason.SUPPLIER_INACTIVE, "the supplier is not staked") from None
        except (ChainError, DecodingError):
            return None

    async def _corrected_supplier(self, known: StakedSupplier) -> StakedSupplier | None:
        """Return a supplier's record as most nodes state it, None while they do not agree.

        Every node is queried, once a block for a supplier.
        """
        address = known.operator_address

        async def load() -> StakedSupplier:
            await confirm_supplier(self._chain, address)
            return await self._chain.supplier(address)

        try:
            await self._confirm(f"supplier {address}", known, load, "")
        except Rejected:
            return None
        return await self.supplier(address)

    async def of(self, header: SessionHeader, address: str = "") -> SessionContext:
        """Return the context of a session.

        `address` is the client's, for the budget of fruitless queries. The chain is not queried for what the session's
        own grid decides, and no ring is queried for a header that is not the chain's. Raises Rejected.
        """
        key = (header.application_address, header.session_end_block_height)
        try:
            session, target_hash, windows = row = await self._known_session(header, address)
            try:
                check_session(header, session, windows, self._height())
            except Rejected as rejected:
                expired = rejected.reason is RejectionReason.SESSION_EXPIRED and self._grid_refuses(header)
                if expired or not await self._has_changed(header, row, address):
                    raise
                raise Rejected(RejectionReason.CHAIN_UNAVAILABLE, "the chain nodes corrected the session") from None
            ring = self._known_ring(key) or await self._current_ring(key)
        except NotFound as error:  # of the ring: the chain knows the session, so this is no statement about the relay
            await self._confirm(key, None, lambda: self._confirmed_ring(key), address)
            raise Rejected(RejectionReason.CHAIN_UNAVAILABLE, f"the ring cannot be built: {error}") from error
        except (ChainError, DecodingError) as error:
            raise Rejected(RejectionReason.CHAIN_UNAVAILABLE, "no chain node is available") from error
        target = self._targets.of(header.service_id, header.session_start_block_height, target_hash)
        return SessionContext(session, target, windows, ring, self._height())

    async def corrected(
        self, header: SessionHeader, context: SessionContext, address: str = ""
    ) -> SessionContext | None:
        """Return the context by which a refused relay is authorized again.

        The result is None if the nodes confirm this one. Every node is queried, once a block for a session. `address`
        is the client's, for its budget of confirmations that change nothing. Raises Rejected while the nodes do not
        agree.
        """
        row = self._sessions.get(_key_of(header))
        ring_key = (header.application_address, header.session_end_block_height)
        changed = await self._has_changed(header, row, address)
        changed |= await self._confirm(ring_key, context.ring, lambda: self._confirmed_ring(ring_key), address)
        return await self.of(header) if changed else None

    async def _has_changed(self, header: SessionHeader, row: _SessionRow | None, address: str) -> bool:
        """Return whether a session is another one after every node was queried.

        Raises Rejected.
        """
        key = _key_of(header)
        return await self._confirm(key, row, lambda: self._confirmed_session(key), address)

    async def _confirm(
        self,
        key: _SessionKey | _RingKey | str,
        known: object,
        load: Callable[[], Coroutine[Any, Any, object]],
        address: str,
    ) -> bool:
        """Return whether what most nodes state differs from what is known.

        Queries them once a block. Confirmations have a queue of their own, which the queries of other relays never wait
        for. Raises Rejected while the nodes do not agree.
        """
        confirmation = self._confirmations.get(key)
        if confirmation is None or confirmation[0] != self._height():
            height = self._height()
            try:
                confirmation = (height, await self._query_every_node(key, load, address))
            except (ChainError, DecodingError):
                confirmation = (height, None)
            self._confirmations[key] = confirmation
            if confirmation[1] is None or confirmation[1] == known:
                self._confirmation_budget.strike(address)
        if confirmation[1] is None:
            raise Rejected(RejectionReason.CHAIN_UNAVAILABLE, "the chain nodes do not confirm the session")
        return confirmation[1] != known

    async def _query_every_node(
        self, key: object, load: Callable[[], Coroutine[Any, Any, object]], address: str
    ) -> object:
        """Run a confirmation.

        Raises Rejected if too many wait, or too many of this address changed nothing.
        """
        if key not in self._confirming:
            self._confirmation_budget.check(address)
            if len(self._confirming) >= _MAX_CONFIRMATIONS:
                raise Rejected(RejectionReason.OVERLOADED, "too many sessions wait for their confirmation")
        return await self._confirming.do(key, lambda: self._limited(self._confirmation_limit, load))

    async def _confirmed_session(self, key: _SessionKey) -> _SessionRow:
        """Query a session of every node.

        What is known is kept until they state something else.
        """
        try:
            await confirm_session(self._chain, *key)
            return await self._session(key)
        except (NotFound, ChainQueryRejected, NodesDisagree):
            self._sessions.pop(key, None)
            raise

    async def _confirmed_ring(self, key: _RingKey) -> ExpectedRing:
        """Query a ring of every node.

        What is known is kept until they state something else.
        """
        try:
            await confirm_application(self._chain, key[0])
            application = await self._chain.application(key[0])
            for address in set(ring_addresses(application.delegations, key[1])) - {PLACEHOLDER_ADDRESS}:
                await confirm_account(self._chain, address)
            return await self._ring(key)
        except (NotFound, NodesDisagree):
            self._rings.pop(key, None)
            raise

    def _check_budget(self, key: _SessionKey, address: str) -> None:
        """Raise Rejected after too many fruitless queries, except of staked applications."""
        try:
            self._budget.check(address)
        except Rejected:
            if not self._staked.include(*key[:2]):
                raise

    async def _known_session(self, header: SessionHeader, address: str) -> _SessionRow:
        """Return the chain's session of an application, service and start height.

        Raises Rejected and ChainError.
        """
        key = _key_of(header)
        known = self._sessions.get(key)
        if known is not None:
            return known
        self._negative_cache.check(key)
        if key[:2] not in self._existing:
            self._check_budget(key, address)
        await self._check_grid(header)
        try:
            return await self._query(key, lambda: self._session(key))
        except (NotFound, ChainQueryRejected) as error:
            self._budget.strike(address)
            if error.unanswered:
                _LOG.debug("session not confirmed", unanswered=error.unanswered)  # strangers need not know the nodes
                raise Rejected(RejectionReason.CHAIN_UNAVAILABLE, "not all chain nodes answered") from error
            subject = "application or service" if isinstance(error, NotFound) else "session"
            denied = Rejected(RejectionReason.SESSION_MISMATCH, f"the chain knows no such {subject}: {error}")
            if not self._negative_cache.is_confirmed(key, error.nodes):
                text = f"a single answer names no such {subject}, and the next block may confirm it: {error}"
                denied = Rejected(RejectionReason.CHAIN_UNAVAILABLE, text)
            raise self._negative_cache.remember(key, denied) from error

    async def _check_grid(self, header: SessionHeader) -> None:
        """Reject heights that belong to no session, or to one that is over or far away.

        It uses the latest parameters, queried once a session. They do not describe sessions before their own grid
        began, which are queried. Raises Rejected.
        """
        height, start = self._height(), header.session_start_block_height
        if height < 1:
            return
        known = self._grid
        if known is None or known[0] != known[1].session_start(height):
            try:
                params = await self._query("grid", lambda: self._chain.shared_params(height))
            except (ChainError, DecodingError):
                return
            known = self._grid = (params.session_start(height), params, height)
        begun, grid, queried = known
        following = grid.session_end(begun) + 1
        if start > following:
            raise Rejected(
                RejectionReason.CHAIN_UNAVAILABLE, "the session has not begun at the height that is known here"
            )
        rejected = _grid_rejection(header, grid, following, height)
        if rejected is None:
            return
        if await self._confirm("grid", grid, lambda: self._confirmed_grid(queried), ""):
            raise Rejected(RejectionReason.CHAIN_UNAVAILABLE, "the chain nodes corrected the length of sessions")
        raise rejected

    def _grid_refuses(self, header: SessionHeader) -> bool:
        """Return True if the latest parameters refuse a session, too."""
        if self._grid is None:
            return False
        begun, grid, _ = self._grid
        return _grid_rejection(header, grid, grid.session_end(begun) + 1, self._height()) is not None

    async def _confirmed_grid(self, height: int) -> SharedParams:
        await confirm_params(self._chain, height)
        params = await self._chain.shared_params(height)
        self._grid = (params.session_start(height), params, height)
        return params

    async def _query(self, key: object, load: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Query the chain with limited concurrency, coalescing equal queries.

        Clients that are not authenticated must not flood its nodes. Raises Rejected if too many queries wait.
        """
        if key not in self._single_flight and len(self._single_flight) >= _MAX_QUERIES:
            raise Rejected(RejectionReason.OVERLOADED, "too many session queries are waiting, try another supplier")
        return await self._single_flight.do(key, lambda: self._limited(self._query_limit, load))

    @staticmethod
    async def _limited(limit: asyncio.Semaphore, load: Callable[[], Coroutine[Any, Any, T]]) -> T:
        async with limit:
            return await load()

    async def _session(self, key: _SessionKey) -> _SessionRow:
        """Return session, target hash and windows by the params at the session's start."""
        application_address, service_id, start = key
        session = await self._chain.session(application_address, service_id, start)
        params = await self._chain.shared_params(start)
        difficulty = await self._chain.difficulty(service_id, start)
        # Only the chain's own sessions are cached, so that clients cannot fill the cache with invented ones.
        header = session.header
        row = (session, difficulty.target_hash, Windows.after(header.session_end_block_height, params))
        if (header.application_address, header.service_id, header.session_start_block_height) == key:
            self._sessions[key] = row
            self._existing[key[:2]] = None
        return row

    def _known_ring(self, key: _RingKey) -> ExpectedRing | None:
        entry = self._rings.get(key)
        if entry is not None and entry[0] > self._clock() and entry[1] == self._generation():
            return entry[2]
        return None

    async def _current_ring(self, key: _RingKey) -> ExpectedRing:
        """Return the ring that the chain states, or the one known before.

        That one is used while the chain states none. A ring that is older than its lifetime hardly differs: delegations
        change with the next session. Raises Rejected and ChainError.
        """
        older = self._rings.get(key)
        try:
            async with asyncio.timeout(None if older is None else _RING_WAIT_SECONDS):
                return await self._query(key, lambda: self._ring(key))
        except (ChainError, DecodingError, TimeoutError, Rejected) as error:
            if older is None or (isinstance(error, NotFound) and not error.unanswered):
                raise
        self._rings[key] = (self._clock() + _RING_RETRY_SECONDS, self._generation(), older[2])
        return older[2]

    async def _ring(self, key: _RingKey) -> ExpectedRing:
        generation = self._generation()
        ring = ExpectedRing.of(await query_ring(self._chain, *key))
        self._rings[key] = (self._clock() + _RING_SECONDS, generation, ring)
        return ring
