"""Track a miner's phase and the problems that keep it from being ready."""

import time
from collections.abc import Callable, Iterator
from enum import StrEnum

from pocket.api.problems import Problem, ProblemCode
from pocket_miner.storage.disk_reserve import Space

_STALE_SECONDS = 10.0
_STALE_BLOCKS = 5


class Phase(StrEnum):
    """The phase of a miner. It answers /health in each of them."""

    OPENING = "opening"
    """Checking and opening the volume."""
    WAITING = "waiting"
    """Waiting for Redis and a chain node."""
    READ_ONLY = "read-only"
    """The volume is read-only: only sealed sessions are claimed and proven."""
    MINING = "mining"
    STOPPING = "stopping"


class Readiness:
    """Collects the problems that keep a miner from being ready.

    `block_seconds` determines how long the miner stays ready without a new block.
    """

    def __init__(self, block_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.phase = Phase.OPENING
        self.redis = ""
        self.volume = ""
        """The problem with the volume or with the space on it. The latter does not make the miner unready."""
        self.volume_hangs: Callable[[], str] = lambda: ""
        """Returns the problem with a volume that does not answer."""
        self.space: Space | None = None
        """The space on the volume as last measured."""
        self._chain = ""
        self._stale_seconds = max(_STALE_SECONDS, _STALE_BLOCKS * block_seconds)
        self._clock = clock
        self._block_at = clock()

    @property
    def since_block(self) -> float:
        """Return the seconds since the last block."""
        return self._clock() - self._block_at

    def block(self) -> None:
        """Record a new block.

        Also called when blocks are expected from now on.
        """
        self._block_at = self._clock()
        self._chain = ""

    def enter(self, phase: Phase) -> None:
        """Record that a phase begins."""
        self.phase = phase
        if phase is Phase.MINING:
            self.redis = ""
            self.block()

    def chain_away(self, reason: str) -> None:
        """Record why no chain node can be used at the start."""
        self._chain = reason

    def volume_away(self, reason: str) -> None:
        """Record why the volume cannot be opened, an empty text once it can."""
        self.volume = reason

    def problems(self, *, keys_missing: bool, signer: str = "") -> Iterator[Problem]:
        """Yield why the miner is not ready, causes before consequences."""
        waiting = "" if self.phase is Phase.MINING else "waiting for "
        if self.redis:
            yield Problem(code=ProblemCode.REDIS_UNAVAILABLE, message=f"{waiting}Redis: {self.redis}")
        if self._chain:
            yield Problem(code=ProblemCode.CHAIN_UNAVAILABLE, message=f"waiting for a chain node: {self._chain}")
        elif self.phase is Phase.MINING and self.since_block > self._stale_seconds:
            yield Problem(code=ProblemCode.NO_NEW_BLOCK, message="no new block for too long: check the chain nodes")
        if self.phase is Phase.STOPPING:
            yield Problem(code=ProblemCode.DRAINING, message="stopping")
        elif self.phase is Phase.READ_ONLY:
            yield Problem(code=ProblemCode.VOLUME_READ_ONLY, message=self.volume)
        elif self.phase is not Phase.MINING:
            cause = f", {self.volume}" if self.volume and self.phase is Phase.OPENING else ""
            yield Problem(code=ProblemCode.STARTING, message=f"starting: {self.phase.value}{cause}")
        if hangs := self.volume_hangs():
            yield Problem(code=ProblemCode.VOLUME_HANGS, message=hangs)
        if keys_missing:
            yield Problem(code=ProblemCode.NO_KEYS, message="no supplier key is loaded")
        if signer:
            yield Problem(code=ProblemCode.SIGNER_UNAVAILABLE, message=f"the signer does not answer: {signer}")
