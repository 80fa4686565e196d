"""Confirm the shared params at the starts of sessions.

They determine windows and the price of relays.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

import structlog
from cachetools import FIFOCache
from structlog.typing import FilteringBoundLogger

from pocket.chain import convert
from pocket.chain.client import ChainClient
from pocket.chain.votes import Votes
from pocket.errors import ChainError, DecodingError
from pocket.protocol.pb import pocket_shared_pb2 as shared_pb
from pocket.protocol.sessions.windows import SharedParams
from pocket_miner.sessions.tracked_session import TrackedSession

_LOG: FilteringBoundLogger = structlog.get_logger()
_METHOD: Final = "/pocket.shared.Query/ParamsAtHeight"
_KEPT: Final = 64
_SECONDS: Final = 2.0
T = TypeVar("T")


@dataclass(slots=True)
class StartParams:
    """Queries every node for the params at a session start.

    Once per block for all suppliers of a process.
    """

    chain: ChainClient
    _votes: FIFOCache[int, Votes[SharedParams]] = field(default_factory=lambda: FIFOCache(_KEPT))
    _present: tuple[int, SharedParams | None] = (-1, None)
    _asking_live: asyncio.Lock = field(default_factory=asyncio.Lock)
    _silent_at: int = -1
    """Height at which nodes were silent about a session."""

    async def confirm(self, session: TrackedSession, height: int) -> None:
        """Confirm the params of a session by a second answer, or replace them.

        The nodes agree on the new ones.

        `height` is the latest height. While no two answers agree, only params that are missing are set.
        """
        start = session.header.session_start_block_height
        votes = self._votes.setdefault(start, Votes())
        async with votes.asking:
            if session.params is not None:
                votes.answers.setdefault(("first", 0), session.params)
            best = votes.best()
            if (best is None or not best[1]) and votes.asked_at != height:
                await self._ask(start, height, votes)
                best = votes.best()
        if best is None or not best[1]:
            session.params = session.params or (best[0] if best is not None else await self._live(session, height))
            return
        if session.params not in (None, best[0]):
            _LOG.error(
                "params of a session replaced, the chain's nodes state others than the first answer",
                session=session.session_id,
                height=height,
            )
        session.params, session.params_confirmed = best[0], True

    async def _live(self, session: TrackedSession, height: int) -> SharedParams | None:
        """Return the present params for a sealed session.

        Its windows are hardly others, and its claim is due.
        """
        if session.seal is None:
            return None
        async with self._asking_live:
            if self._present[0] != height:
                self._present = height, None
                with contextlib.suppress(ChainError, DecodingError, TimeoutError):
                    self._present = height, await self.chain.shared_params()
            return self._present[1]

    async def in_time(self, height: int, ask: Callable[[], Awaitable[Mapping[str, T]]]) -> Mapping[str, T]:
        """Return answers of nodes about a session, none if they take seconds.

        Then no other session of that block waits for them, because claims and proofs of all are due.
        """
        if self._silent_at == height:
            return {}
        try:
            async with asyncio.timeout(_SECONDS):
                return await ask()
        except TimeoutError:
            self._silent_at = height
            return {}

    async def _ask(self, start: int, height: int, votes: Votes[SharedParams]) -> None:
        """Query every node. The cached answer is dropped if one contradicts it."""
        request = shared_pb.QueryParamsAtHeightRequest(height=start)
        by_node = await self.chain.decoded_by_node(
            _METHOD, request, shared_pb.QueryParamsAtHeightResponse, lambda row: convert.shared_params(row.params)
        )
        first = votes.answers.get(("first", 0))
        if any(params != first for params in by_node.values()):
            await self.chain.adopt(_METHOD, request, None)
        votes.add(height, by_node)
