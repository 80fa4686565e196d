"""Query the claims of a supplier.

Several nodes are queried where one answer does not suffice.
"""

from collections.abc import Collection, Sequence

from pocket.chain.client import ChainClient
from pocket.errors import ChainError, PocketError
from pocket.protocol.claims.proof_requirement import Claim
from pocket_miner.sessions.claim_view import ClaimsAnswer, surprising
from pocket_miner.sessions.tracked_session import TrackedSession


async def query_claims(
    chain: ChainClient, supplier: str, sessions: Collection[TrackedSession], height: int
) -> list[ClaimsAnswer]:
    """Return what the chain states about the claims of open sessions at a height.

    The result is empty if no session can have a claim yet, or if no node could be queried. At a later height a claim
    may have been settled and removed, as if it had never existed. After a surprising answer every node is queried.
    """
    if not any(s.seal is not None or (s.windows is not None and height >= s.windows.claim_open) for s in sessions):
        return []
    try:
        claims = await chain.claims_of(supplier, height)
    except (PocketError, TimeoutError):
        return []
    answers = [ClaimsAnswer("a node", height, _by_session(claims))]
    if any(surprising(session, answers[0]) for session in sessions):
        rows = (await chain.claims_by_node(supplier, height)).items()
        by_node = [ClaimsAnswer(n, height, _by_session(row)) for n, row in rows if not isinstance(row, ChainError)]
        answers = by_node or answers
    return answers


def _by_session(claims: Sequence[Claim]) -> dict[str, Claim]:
    return {claim.header.session_id: claim for claim in claims}
