"""Reject nodes of another chain."""

import asyncio
import random
from typing import Protocol

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.errors import ChainError, ConfigurationError

_LOG: FilteringBoundLogger = structlog.get_logger()
_LOG_INTERVAL_SECONDS = 30.0


class NamedChain(Protocol):
    """A client that can query the chain id."""

    async def chain_id(self) -> str:
        """Network name of the node."""


async def require_chain_id(
    chain: NamedChain, expected: str, stop: asyncio.Event, pause_seconds: float = 0.5,
    rng: random.Random | None = None,
) -> None:  # fmt: skip
    """Wait for a reachable node until `stop` is set, then check its chain id.

    Raises ConfigurationError if the node belongs to another chain than `expected`.
    """
    rng = rng or random.Random()  # noqa: S311 - jitter
    now = asyncio.get_running_loop().time
    logged_at = float("-inf")
    while not stop.is_set():
        try:
            actual = await chain.chain_id()
        except ChainError as error:
            if now() - logged_at >= _LOG_INTERVAL_SECONDS:
                logged_at = now()
                _LOG.warning("waiting for a chain node: check spec.chain.nodes", error=error)
            await asyncio.sleep(pause_seconds * rng.uniform(0.5, 1.5))
            continue
        if actual != expected:
            raise ConfigurationError(
                f"the node is on chain {actual!r}, spec.chain.id is {expected!r}. "
                "Correct one of them: the chain rejects claims that were signed for another one."
            )
        return
