"""Confirm the shared params at the starts of sessions, which determine their windows and the price of their relays."""

from dataclasses import dataclass, field
from typing import Final

import structlog
from cachetools import FIFOCache
from structlog.typing import FilteringBoundLogger

from pocket.chain import convert
from pocket.chain.client import ChainClient
from pocket.chain.votes import Votes
from pocket.protocol.pb import pocket_shared_pb2 as shared_pb
from pocket.protocol.sessions.windows import SharedParams
from pocket_miner.sessions.tracked_session import TrackedSession

_LOG: FilteringBoundLogger = structlog.get_logger()
_METHOD: Final = "/pocket.shared.Query/ParamsAtHeight"
_KEPT: Final = 64


@dataclass(slots=True)
class StartParams:
    """Queries every node for the params at a session start, once per block for all suppliers of a process."""

    chain: ChainClient
    _votes: FIFOCache[int, Votes[SharedParams]] = field(default_factory=lambda: FIFOCache(_KEPT))

    async def confirm(self, session: TrackedSession, height: int) -> None:
        """Confirm the params of a session by a second answer, or replace them by those that the nodes agree on.

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
            session.params = session.params or (best and best[0])
            return
        if session.params not in (None, best[0]):
            _LOG.error(
                "params of a session replaced, the chain's nodes state others than the first answer",
                session=session.session_id,
                height=height,
            )
        session.params, session.params_confirmed = best[0], True

    async def _ask(self, start: int, height: int, votes: Votes[SharedParams]) -> None:
        """Query every node. The cached answer is dropped if one contradicts it."""
        request = shared_pb.QueryParamsAtHeightRequest(height=start)
        found = await self.chain.decoded_by_node(
            _METHOD, request, shared_pb.QueryParamsAtHeightResponse, lambda row: convert.shared_params(row.params)
        )
        first = votes.answers.get(("first", 0))
        if any(params != first for params in found.values()):
            await self.chain.adopt(_METHOD, request, None)
        votes.add(height, found)
