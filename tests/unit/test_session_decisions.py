"""What is decided of a session at each height of its life, and what is learned on the way."""

from dataclasses import dataclass, field

import pytest
from prometheus_client import REGISTRY

from pocket.protocol.claims.proof_requirement import VALIDATED, Claim, ProofParams
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.windows import SharedParams
from pocket.redis_store.seals import SessionSeal
from pocket_miner.sessions.claim_view import ClaimsAnswer
from pocket_miner.sessions.deadlines import Deadline, deadline_of, earliest
from pocket_miner.sessions.leaf_validation import LeafTerms
from pocket_miner.sessions.stages import Action, Decision, Stage
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.suppliers.quiet_sessions import quiet_sessions
from pocket_miner.suppliers.session_decisions import decide_session
from pocket_miner.suppliers.terms_confirmation import confirm_due
from pocket_miner.suppliers.window_margins import observe_margin

HEADER = SessionHeader("app", "eth", "s", 1, 10)
PARAMS = SharedParams(proof_window_open_offset_blocks=3)
WINDOWS = PARAMS.windows(1)
TERMS = LeafTerms("alice", HEADER, b"\xff" * 32, 100)
ROOT = bytes(32) + (100).to_bytes(8) + (1).to_bytes(8)
LIFE = range(1, WINDOWS.settlement + 4)


def tracked(*, known=True, sealed=False, confirmed=True, params=PARAMS):
    session = TrackedSession(HEADER, terms=TERMS if known else None, params=params, params_confirmed=confirmed)
    if sealed:
        session.seal = SessionSeal("s", ROOT, bytes(32), 13, 1)
    return session


@dataclass
class Proofs:
    decided: list = field(default_factory=list)

    async def decide(self, session, params, height):
        self.decided.append(height)


class Consumer:
    async def learn_terms(self, session, height):
        return session.terms is not None


async def decisions(session, claim=None, heights=LIFE):
    """Return the decision at each height, and the heights at which a proof was decided and a claim was learned."""
    proofs, rows, claimed = Proofs(), {}, []
    for height in heights:
        session.claim_seen_at = 0
        answers = [ClaimsAnswer("node", height, {} if claim is None else {"s": claim})]
        rows[height] = await decide_session(session, answers, height, ProofParams(), Consumer(), proofs, 1)
        if session.claim_seen_at:
            claimed.append(height)
    return rows, proofs.decided, claimed


@pytest.mark.parametrize(("known", "sealed"), [(True, False), (True, True), (False, True)])
async def test_claims_are_learned_between_claim_window_and_settlement_and_proofs_decided_from_their_seed_on(
    known, sealed
):
    session = tracked(known=known, sealed=sealed)
    rows, proofs, claimed = await decisions(session, Claim("alice", HEADER, ROOT))
    assert claimed == list(range(WINDOWS.claim_open, WINDOWS.settlement))
    assert proofs == list(range(WINDOWS.proof_seed, WINDOWS.settlement))
    for height, decision in rows.items():
        assert (decision.action is Action.CONCLUDE) is (height >= WINDOWS.settlement)


async def test_a_session_that_cannot_be_claimed_is_active_until_it_settles():
    rows, proofs, claimed = await decisions(tracked(known=False), Claim("alice", HEADER, ROOT))
    assert proofs == []
    assert claimed == list(range(WINDOWS.claim_open, WINDOWS.settlement)), "another owner may have claimed it"
    over = Decision(Stage.SETTLED, Action.CONCLUDE)
    active = Decision(Stage.ACTIVE, Action.NOTHING)
    assert rows == {height: over if height >= WINDOWS.settlement else active for height in LIFE}


@pytest.mark.parametrize("known", [True, False])
async def test_a_session_is_not_concluded_by_windows_that_one_answer_alone_states(known):
    rows, _, _ = await decisions(tracked(known=known, confirmed=False))
    late = {rows[height] for height in LIFE if height >= WINDOWS.settlement}
    assert late == {Decision(Stage.SETTLED, Action.NOTHING)}
    early = {rows[height].stage for height in LIFE if height < WINDOWS.settlement}
    assert Stage.SETTLED not in early


async def test_nothing_is_decided_while_the_windows_are_unknown():
    rows, proofs, _ = await decisions(tracked(params=None))
    assert (set(rows.values()), proofs) == ({None}, [])


def observed(message):
    rows = (REGISTRY.get_sample_value(f"pocket_miner_window_margin_blocks_{name}", {"message": message})
            for name in ("count", "sum"))  # fmt: skip
    return [row or 0.0 for row in rows]


@pytest.mark.parametrize(
    ("stage", "status", "height", "claim", "proof"),
    [
        (Stage.CLAIMED, 0, WINDOWS.claim_close - 2, 2, None),
        (Stage.CLAIMED, VALIDATED, WINDOWS.claim_close + 1, 0, None),
        (Stage.PROOF_NOT_REQUIRED, 0, WINDOWS.claim_close, 0, None),
        (Stage.PROVEN, VALIDATED, WINDOWS.proof_close - 1, 0, 1),
        (Stage.PROVEN, VALIDATED, WINDOWS.proof_close + 5, 0, 0),
        (Stage.PROVEN, 0, WINDOWS.proof_close - 1, 0, None),
        (Stage.SEALED, VALIDATED, WINDOWS.claim_close - 2, None, None),
        (Stage.PROOFABLE, VALIDATED, WINDOWS.proof_close - 2, None, None),
    ],
)
def test_the_blocks_that_were_left_when_claim_and_proof_came_are_measured_once(stage, status, height, claim, proof):
    session = tracked(sealed=True)
    session.claim_on_chain = Claim("alice", HEADER, ROOT, status)
    before = [*observed("claim"), *observed("proof")]
    for later in range(3):
        observe_margin(session, Decision(stage, Action.NOTHING), height + later)
    after = [*observed("claim"), *observed("proof")]
    found = [now - then for now, then in zip(after, before, strict=True)]
    assert found == [claim is not None, claim or 0, proof is not None, proof or 0]
    assert set(session.first_seen.values()) <= {height}
    observe_margin(tracked(params=None), Decision(stage, Action.NOTHING), height)
    assert [*observed("claim"), *observed("proof")] == after, "its windows are unknown"


@dataclass
class Confirming:
    """Notes what is confirmed of which sessions."""

    asked: list = field(default_factory=list)

    @property
    def start_params(self):
        return self

    async def confirm(self, session, height):
        self.asked.append("params")
        session.params_confirmed = True

    async def confirm_terms(self, session, height):
        self.asked.append("terms")


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("confirmed", [False, True])
@pytest.mark.parametrize("known", [False, True])
async def test_params_and_terms_are_confirmed_from_the_end_on_and_terms_while_stake_depends_on_them(
    sealed, confirmed, known
):
    for height in LIFE:
        for terms_confirmed in (False, True):
            session, asking = tracked(known=known, sealed=sealed, confirmed=confirmed), Confirming()
            session.terms_confirmed = terms_confirmed
            await confirm_due(asking, [session], height)
            close = WINDOWS.proof_close if sealed else WINDOWS.claim_close
            terms = known and not terms_confirmed and HEADER.session_end_block_height < height < close
            params = not confirmed and height > HEADER.session_end_block_height
            assert asking.asked == ["params"] * params + ["terms"] * terms


@pytest.mark.parametrize(
    ("stage", "due"),
    [
        (Stage.ACTIVE, "claim"), (Stage.GRACE, "claim"), (Stage.CLAIMABLE, "claim"), (Stage.SEALED, "claim"),
        (Stage.CLAIMED, "proof"), (Stage.PROOFABLE, "proof"), (Stage.PROVEN, None), (Stage.PROOF_NOT_REQUIRED, None),
        (Stage.SETTLED, None),
    ],
)  # fmt: skip
def test_a_deadline_is_the_close_of_the_window_of_what_is_owed(stage, due):
    closes = {"claim": Deadline(WINDOWS.claim_close, "claim"), "proof": Deadline(WINDOWS.proof_close, "proof")}
    assert deadline_of(WINDOWS, stage) == closes.get(due)
    assert deadline_of(None, stage) is None


def test_the_earliest_deadline_counts_the_sessions_that_share_it():
    claim, later, proof = Deadline(9, "claim", 2), Deadline(10, "claim", 5), Deadline(9, "proof", 3)
    assert earliest(None, None) is None
    assert earliest(claim, None) == earliest(None, claim) == claim
    assert earliest(claim, later) == earliest(later, claim) == claim
    assert earliest(claim, proof) == earliest(proof, claim) == claim, "a claim comes before a proof"
    assert earliest(claim, Deadline(9, "claim", 4)) == Deadline(9, "claim", 6)


def test_sessions_are_quiet_until_the_first_of_them_ends_or_the_cutoff_changes():
    other = tracked()
    other.header = SessionHeader("app", "eth", "t", 1, 8)
    stages = {"s": Stage.ACTIVE, "t": Stage.ACTIVE}
    quiet = quiet_sessions([tracked(), other], stages, 9)
    assert (quiet.session_ids, quiet.until) == (frozenset({"s", "t"}), 8)
    assert quiet_sessions([tracked(), other], stages, 7).until == 7
    assert quiet_sessions([], {}, 7).until == 7
    for session, stage in ((tracked(known=False), Stage.ACTIVE), (tracked(sealed=True), Stage.ACTIVE),
                           (tracked(), Stage.GRACE), (tracked(), None)):  # fmt: skip
        assert quiet_sessions([other, session], {"s": stage, "t": Stage.ACTIVE}, 9) is None
