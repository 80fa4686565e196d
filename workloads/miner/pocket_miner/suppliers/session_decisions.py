"""Decide a session at a block, by what the chain states about it then."""

from collections.abc import Sequence

from pocket.protocol.claims.proof_requirement import ProofParams
from pocket_miner.ingest.relay_consumer import RelayConsumer
from pocket_miner.sessions.claim_view import ClaimsAnswer, learn
from pocket_miner.sessions.stages import Action, ClaimState, Decision, SessionSnapshot, Stage, decide
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.submission.proofs import ProofSubmitter


async def decide_session(
    session: TrackedSession, answers: Sequence[ClaimsAnswer], height: int, proof: ProofParams,
    consumer: RelayConsumer, proofs: ProofSubmitter, seal_after_blocks: int,
) -> Decision | None:  # fmt: skip
    """Decide a session at a height. Returns None while its windows are unknown."""
    known = await consumer.learn_terms(session, height)
    windows = session.windows
    if windows is None:
        return None
    over = height >= windows.settlement
    if over and not session.params_confirmed:
        return Decision(Stage.SETTLED, Action.NOTHING)  # its windows may still be open
    claim = ClaimState.ABSENT
    if height >= windows.claim_open and not over:
        claim = learn(session, list(answers))
    if not known and session.seal is None:
        # As far as is known it cannot be claimed. The chain is queried about it until it settles.
        return Decision(Stage.SETTLED, Action.CONCLUDE) if over else Decision(Stage.ACTIVE, Action.NOTHING)
    if height >= windows.proof_seed and not over:
        await proofs.decide(session, proof, height)
    facts = SessionSnapshot(windows, session.seal is not None, claim, session.requirement, seal_after_blocks)
    return decide(facts, height)
