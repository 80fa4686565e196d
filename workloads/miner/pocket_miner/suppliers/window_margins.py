"""Measure how much of their windows claims and proofs left unused."""

from pocket_miner import miner_metrics
from pocket_miner.sessions.stages import Decision, Stage
from pocket_miner.sessions.tracked_session import TrackedSession


def observe_margin(session: TrackedSession, decision: Decision, height: int) -> None:
    """Observe, once per claim and proof, how many blocks were left in its window."""
    windows, proven = session.windows, decision.stage is Stage.PROVEN and session.proven
    if windows is None or decision.stage not in (Stage.CLAIMED, Stage.PROVEN, Stage.PROOF_NOT_REQUIRED):
        return
    for message, came, close in (("claim", True, windows.claim_close), ("proof", proven, windows.proof_close)):
        if came and message not in session.first_seen:
            session.first_seen[message] = height
            miner_metrics.MARGIN.labels(message).observe(max(0, close - height))
