"""Find the problem that a worker reports, and its effect on readiness. Pure.

The readiness is that of the pod.
"""

from dataclasses import dataclass
from typing import Final

from pocket.api.problems import Problem, ProblemCode

OF_ONE_WORKER: Final = frozenset({ProblemCode.NO_KEYS, ProblemCode.LOG_UNAVAILABLE})
"""Problems with which a worker rejects every relay, and which other workers or pods need not have."""
OF_ALL_PODS: Final = frozenset({ProblemCode.REDIS_UNAVAILABLE, ProblemCode.REDIS_FULL})
"""Problems of what all pods share.

They are reported, and a serving pod stays ready: no other pod could serve its relays, and its clients get an error with
Retry-After instead of no connection.
"""


@dataclass(frozen=True, slots=True)
class ServingState:
    """The facts that decide if a worker can serve relays."""

    draining: bool
    keys: int
    keys_dir: str
    signer_problem: str
    """Why the remote signer cannot be used, empty while it can or without one."""
    log_problem: str
    stale: bool
    redis_full: bool
    redis_error: str
    strict: bool
    """True if a relay is answered only once it is in Redis."""


def worker_problem(state: ServingState) -> Problem | None:
    """Return the most severe problem, or None. Those of the worker itself come first."""
    if state.draining:
        return Problem(code=ProblemCode.DRAINING, message="draining")
    if not state.keys:
        return Problem(code=ProblemCode.NO_KEYS, message=f"no supplier key is loaded from {state.keys_dir}")
    if state.signer_problem:
        text = f"the signer is away: {state.signer_problem}"
        return Problem(code=ProblemCode.SIGNER_UNAVAILABLE, message=text)
    if state.log_problem:
        return Problem(code=ProblemCode.LOG_UNAVAILABLE, message=state.log_problem)
    if state.stale:
        text = "no new block for too long: check the chain nodes"
        return Problem(code=ProblemCode.NO_NEW_BLOCK, message=text)
    if state.redis_full:
        text = "the memory of Redis is almost full, relays are rejected: raise its limit"
        return Problem(code=ProblemCode.REDIS_FULL, message=text)
    if state.strict and state.redis_error:
        text = f"Redis does not answer, relays cannot be recorded: {state.redis_error}"
        return Problem(code=ProblemCode.REDIS_UNAVAILABLE, message=text)
    return None
