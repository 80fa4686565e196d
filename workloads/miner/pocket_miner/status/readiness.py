"""How far a miner has come, and why it is not ready."""

import time
from collections.abc import Callable, Iterator
from enum import StrEnum

from pocket.api.problems import Problem, ProblemCode

_STALE_SECONDS = 10.0
_STALE_BLOCKS = 5


class Phase(StrEnum):
    """How far a miner has come. It answers /health in each of them."""

    OPENING = "opening"
    """Its volume is looked at."""
    WAITING = "waiting"
    """For Redis, for a chain node."""
    READ_ONLY = "read-only"
    """The volume takes no writes: only what is sealed on it is claimed and proven."""
    MINING = "mining"
    STOPPING = "stopping"


class Readiness:
    """Collects what keeps a miner from being ready; `block_seconds` bounds how long no block may come."""

    def __init__(self, block_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.phase = Phase.OPENING
        self.redis = ""
        self.volume = ""
        """What is wrong with the space on the volume; a miner is ready all the same."""
        self._chain = ""
        self._patience = max(_STALE_SECONDS, _STALE_BLOCKS * block_seconds)
        self._clock = clock
        self._block_at = clock()

    @property
    def since_block(self) -> float:
        """Seconds since the last block."""
        return self._clock() - self._block_at

    def block(self) -> None:
        """Note a new block; also called when blocks are to be expected from now on."""
        self._block_at = self._clock()
        self._chain = ""

    def enter(self, phase: Phase) -> None:
        """Note that a phase begins."""
        self.phase = phase
        if phase is Phase.MINING:
            self.redis = ""
            self.block()

    def chain_away(self, reason: str) -> None:
        """Note why the chain cannot be asked at the start."""
        self._chain = reason

    def problems(self, *, keys_missing: bool) -> Iterator[Problem]:
        """Why the miner is not ready, the cause before its consequences."""
        waiting = "" if self.phase is Phase.MINING else "waiting for "
        if self.redis:
            yield Problem(code=ProblemCode.REDIS_UNAVAILABLE, message=f"{waiting}Redis: {self.redis}")
        if self._chain:
            yield Problem(code=ProblemCode.CHAIN_UNAVAILABLE, message=f"waiting for a chain node: {self._chain}")
        elif self.phase is Phase.MINING and self.since_block > self._patience:
            yield Problem(code=ProblemCode.NO_NEW_BLOCK, message="no new block for too long: check the chain nodes")
        if self.phase is Phase.STOPPING:
            yield Problem(code=ProblemCode.DRAINING, message="stopping")
        elif self.phase is Phase.READ_ONLY:
            yield Problem(code=ProblemCode.VOLUME_READ_ONLY, message=self.volume)
        elif self.phase is not Phase.MINING:
            yield Problem(code=ProblemCode.STARTING, message=f"starting: {self.phase.value}")
        if keys_missing:
            yield Problem(code=ProblemCode.NO_KEYS, message="no supplier key is loaded")
