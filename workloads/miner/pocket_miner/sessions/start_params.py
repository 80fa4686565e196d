"""Confirm the shared params at the starts of sessions, which determine their windows and the price of their relays."""

from dataclasses import dataclass, field
from typing import Final

import structlog
from cachetools import FIFOCache
from structlog.typing import FilteringBoundLogger

from pocket.chain import convert
from pocket.chain.client import ChainClient
from pocket.errors import DecodingError
from pocket.protocol.pb import pocket_shared_pb2 as shared_pb
from pocket.protocol.sessions.windows import SharedParams
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.sessions.votes import Votes

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

        `height` is the latest height. Nothing changes while no two answers agree.
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
        request, found = shared_pb.QueryParamsAtHeightRequest(height=start), {}
        for node, answer in (await self.chain.ask_every_node(_METHOD, request)).items():
            if answer.error is None:
                try:
                    response = shared_pb.QueryParamsAtHeightResponse.FromString(answer.raw)
                    found[node] = convert.shared_params(response.params)
                except DecodingError:
                    continue
        first = votes.answers.get(("first", 0))
        if any(params != first for params in found.values()):
            await self.chain.adopt(_METHOD, request, None)
        votes.add(height, found)
