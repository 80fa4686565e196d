"""Confirm the target of a service at a session start before a relay above it is left unmined.

A relay that is not recorded is never paid, whereas the miner leaves out recorded ones above the right target.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog
from cachetools import LRUCache
from structlog.typing import FilteringBoundLogger

from pocket.chain import convert
from pocket.chain.agreement import ConfirmableChain
from pocket.chain.votes import Votes
from pocket.errors import ChainError
from pocket.protocol.pb import pocket_service_pb2 as service_pb

_LOG: FilteringBoundLogger = structlog.get_logger()
_METHOD: Final = "/pocket.service.Query/RelayMiningDifficultyAtHeight"
_TARGETS: Final = 4096
_SECONDS: Final = 2.0
"""How long a relay waits for the chain nodes, once a block for a service and session start."""


@dataclass(slots=True)
class _Target:
    votes: Votes[bytes] = field(default_factory=Votes)
    confirmed: bytes | None = None
    asked_at: int = -1
    """Height of the latest query, answered or not."""


class TargetConfirmation:
    """Queries every node for a target, at most once a block, until a second answer agrees with the most frequent one.

    Until then the highest target that a node stated counts.
    """

    def __init__(self, chain: ConfirmableChain, height: Callable[[], int]) -> None:
        self._chain = chain
        self._height = height
        self._targets: LRUCache[tuple[str, int], _Target] = LRUCache(_TARGETS)

    async def target(self, service_id: str, start: int, known: bytes) -> bytes:
        """Return the target at a session start by all answers. `known` is the first one."""
        target = self._targets.setdefault((service_id, start), _Target())
        if target.confirmed is not None:
            return target.confirmed
        async with target.votes.asking:
            target.votes.answers.setdefault(("first", 0), known)
            if target.confirmed is None and target.asked_at != self._height():
                target.asked_at = self._height()
                with contextlib.suppress(ChainError, TimeoutError):
                    async with asyncio.timeout(_SECONDS):
                        await self._ask(service_id, start, target.votes)
                best = target.votes.best()
                if best is not None and best[1]:
                    target.confirmed = best[0]
        return target.confirmed or max(target.votes.answers.values())

    async def _ask(self, service_id: str, start: int, votes: Votes[bytes]) -> None:
        """Query every node. The cached answer is dropped if one contradicts it."""
        request = service_pb.QueryGetRelayMiningDifficultyAtHeightRequest(serviceId=service_id, blockHeight=start)
        found = await self._chain.decoded_by_node(
            _METHOD, request, service_pb.QueryGetRelayMiningDifficultyAtHeightResponse,
            lambda row: convert.difficulty(row.relayMiningDifficulty).target_hash,
        )  # fmt: skip
        votes.add(self._height(), found)
        if any(target != votes.answers.get(("first", 0)) for target in found.values()):
            _LOG.error(
                "chain nodes disagree on a relay mining difficulty: check spec.chain.nodes",
                service=service_id,
                session_start=start,
            )
            await self._chain.adopt(_METHOD, request, None)
