"""Nothing is final without evidence: statements, claims as the chain tells them, heights, seed hashes, resending."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket.chain.model import TransactionResult
from pocket.errors import ChainUnavailable
from pocket.protocol.claims.proof_requirement import INVALID, VALIDATED, Claim
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.windows import SharedParams
from pocket.redis_store.seals import SessionSeal
from pocket_miner.sessions.claim_view import ClaimsAnswer, learn, surprising
from pocket_miner.sessions.evidence import Evidence, Fact, Statement
from pocket_miner.sessions.stages import ClaimState
from pocket_miner.sessions.submission import Attempts, Resend, Submission, is_last_chance, resend
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.storage.disk_reserve import Reserve, Space
from pocket_miner.submission.seeds import SeedHashes

HEADER = SessionHeader("app", "eth", "s", 1, 10)
OURS, OTHER = bytes([1]) * 48, bytes([2]) * 48


def sealed_session():
    made = TrackedSession(HEADER, params=SharedParams())
    made.seal = SessionSeal("s", OURS, bytes(32), 13, 1)
    return made


def answer(height, root=None, status=0, source="node"):
    claims = {} if root is None else {"s": Claim("op", HEADER, root, status)}
    return ClaimsAnswer(source, height, claims)


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(1, 3)), max_size=6))
def test_a_statement_is_confirmed_by_another_source_or_another_height(said):
    evidence = Evidence()
    for source, height in said:
        evidence.add(Statement(Fact.CLAIM_ABSENT, source, height))
    assert evidence.confirmed(Fact.CLAIM_ABSENT) == (len(set(said)) >= 2)
    evidence.retract(Fact.CLAIM_ABSENT)
    assert not evidence.confirmed(Fact.CLAIM_ABSENT)


@pytest.mark.parametrize(("blocks", "confirmed"), [
    ([{"a"}], False), ([{"a", "b"}], True), ([{"a"}, {"a"}], True), ([{"a"}, set(), {"b"}], True),
    ([{"a"}, set()], False),
])  # fmt: skip
def test_a_claim_is_confirmed_by_two_nodes_or_at_two_heights(blocks, confirmed):
    session = sealed_session()
    for height, nodes in enumerate(blocks, 14):
        learn(session, [answer(height, OURS, source=node) for node in nodes])
    assert session.claim_confirmed is confirmed
    again = sealed_session()
    learn(again, [answer(14, OURS, source="a")])
    learn(again, [answer(14, OURS, source="a")])
    assert not again.claim_confirmed, "the same answer twice"


@given(st.lists(st.sampled_from([None, OURS, OTHER]), min_size=1, max_size=8), st.integers(14, 17))
def test_a_claim_that_was_seen_stays_whatever_is_told_afterwards(told, seen_at):
    session = sealed_session()
    assert learn(session, [answer(seen_at, OURS)]) is ClaimState.PENDING
    for height, root in enumerate(told, seen_at + 1):
        state = learn(session, [] if root is None and height % 2 else [answer(height, root)])
        assert state is not ClaimState.ABSENT
        assert (state is ClaimState.CONFLICTING) == (session.claimed_root == OTHER)
    assert learn(session, [answer(19, OURS, VALIDATED)]) is ClaimState.VALIDATED
    assert not session.evidence.of(Fact.CLAIM_CONFLICTING)


def test_a_sealed_claim_that_one_answer_showed_is_absent_while_its_window_is_open_and_no_later_answer_shows_it():
    session = sealed_session()
    close = session.windows.claim_close
    assert learn(session, [answer(close - 3, OURS)]) is ClaimState.PENDING
    assert learn(session, []) is ClaimState.PENDING, "silence is no answer"
    assert learn(session, [answer(close - 3)]) is ClaimState.PENDING, "it is of the same height"
    assert learn(session, [answer(close - 2)]) is ClaimState.ABSENT
    assert learn(session, [answer(close)]) is ClaimState.PENDING, "a proof may be due"
    assert learn(session, [answer(close - 1), answer(close - 1, OURS, source="other")]) is ClaimState.PENDING
    assert session.claim_confirmed
    session.claim_seen_at = close - 2
    assert learn(session, [answer(close - 1)]) is ClaimState.PENDING


@pytest.mark.parametrize("root", [OURS, OTHER])
def test_a_claim_that_is_not_known_as_ours_is_never_absent_again(root):
    session = sealed_session()
    close = session.windows.claim_close
    if root == OURS:
        session.seal = None
    learn(session, [answer(close - 3, root)])
    assert learn(session, [answer(close - 2)]) is not ClaimState.ABSENT


def test_of_several_seals_the_one_whose_claim_is_on_chain_counts():
    session = sealed_session()
    session.meet_seal(SessionSeal("s", OTHER, bytes(32), 14, 2), from_redis=False)
    assert session.seal.root == OURS, "what a peer holds is only remembered"
    session.claim.sent = Submission(b"tx", "T", 13, accepted=True)
    assert learn(session, [answer(15, OTHER)]) is ClaimState.PENDING
    assert (session.seal.root, session.claim.sent) == (OTHER, None)
    assert learn(session, [answer(16, OURS), answer(16, b"3" * 48)]) is ClaimState.PENDING
    assert session.seal.root == OURS
    assert learn(session, [answer(17, b"3" * 48)]) is ClaimState.CONFLICTING


def test_the_seal_in_redis_replaces_one_that_was_made_without_it_unless_that_one_was_sent():
    for sent, root in ((None, OTHER), (Submission(b"tx", "T", 13, accepted=True), OURS)):
        session = sealed_session()
        session.claim.sent = sent
        for _ in range(3):
            session.meet_seal(SessionSeal("s", OTHER, bytes(32), 14, 2), from_redis=True)
        assert session.seal.root == root
        assert len(session.other_seals) == 1


def test_that_no_claim_is_there_counts_after_the_window_and_by_two_answers():
    session = sealed_session()
    assert [learn(session, [answer(height)]) for height in (13, 14, 15, 16)] == [ClaimState.ABSENT] * 4
    assert learn(session, [answer(17)]) is ClaimState.UNKNOWN
    assert learn(session, []) is ClaimState.UNKNOWN
    assert learn(session, [answer(18)]) is ClaimState.ABSENT
    learn(session, [answer(19, OURS)])
    assert session.evidence.of(Fact.CLAIM_ABSENT) == [], "a node showed it"
    several = sealed_session()
    assert learn(several, [answer(17), answer(17, source="another")]) is ClaimState.ABSENT


def test_our_root_and_a_valid_proof_are_believed_before_anything_else_that_nodes_say():
    session = sealed_session()
    rows = [answer(17, OTHER), answer(17), answer(17, OURS, INVALID), answer(17, OURS, VALIDATED)]
    random.Random(3).shuffle(rows)
    assert learn(session, rows) is not ClaimState.VALIDATED, "this process sent no proof"
    session.proof.sent = Submission(b"tx", "T", 16, accepted=True)
    assert learn(session, rows) is ClaimState.VALIDATED


def test_only_what_is_surprising_is_asked_of_every_node():
    session = sealed_session()
    assert not surprising(session, answer(13))
    assert not surprising(session, answer(15, OURS))
    assert surprising(session, answer(15, OTHER))
    assert surprising(session, answer(17, OURS, INVALID))
    assert surprising(session, answer(17, OURS, VALIDATED))
    session.proof.sent = Submission(b"tx", "T", 16, accepted=True)
    assert not surprising(session, answer(17, OURS, VALIDATED))
    assert surprising(session, answer(17))
    session.claim.sent = Submission(b"tx", "T", 13, accepted=True)
    assert not surprising(session, answer(14))
    assert surprising(session, answer(15))


def test_every_node_is_asked_for_a_claim_before_a_session_is_sealed_later_than_usual():
    """An owner whose seal is lost may have claimed it, and an empty list of one node shows nothing."""
    session = TrackedSession(HEADER, params=SharedParams())
    assert [height for height in range(11, 19) if surprising(session, answer(height))] == [14, 15]
    assert not surprising(session, answer(14, OURS)), "it is adopted if our leaves have its root"


# The seed block.


class Hashes:
    """What nodes tell of a block, one row of answers a question."""

    def __init__(self, *rows):
        self.rows = list(rows)

    async def hashes_by_node(self, height):
        return self.rows.pop(0) if self.rows else {}

    async def block(self, height):
        raise ChainUnavailable("no other interface")


RIGHT, WRONG = b"r" * 32, b"w" * 32


async def test_a_seed_hash_is_confirmed_by_a_second_node_or_block_and_the_most_told_one_counts():
    two = SeedHashes(source := Hashes({"a": RIGHT, "b": RIGHT}), source)
    assert await two.hash_of(15, 15) == (RIGHT, True)
    one = SeedHashes(source := Hashes({"a": WRONG}, {"a": RIGHT}, {"a": RIGHT}), source)
    assert await one.hash_of(15, 15) == (WRONG, False)
    assert await one.hash_of(15, 15) == (WRONG, False), "once a block"
    assert (await one.hash_of(15, 16))[1] is False, "one against one"
    assert await one.hash_of(15, 17) == (RIGHT, True)
    one.doubt(15)
    with pytest.raises(ChainUnavailable):
        await one.hash_of(15, 18)


@pytest.mark.parametrize("liar", ["a", "b"])
async def test_a_hash_that_a_proof_refuted_loses_a_tie_however_long_its_node_repeats_it(liar):
    row = {"a": RIGHT, "b": RIGHT} | {liar: WRONG}
    source = Hashes(*[row] * 9)
    seeds = SeedHashes(source, source)
    first, _ = await seeds.hash_of(15, 15)
    seeds.doubt(15, first)
    second, confirmed = await seeds.hash_of(15, 16)
    assert {first, second} == {RIGHT, WRONG}
    assert not confirmed
    assert await seeds.hash_of(15, 17) == (second, False), "two answers against two"
    seeds.doubt(15, second)
    assert (await seeds.hash_of(15, 18))[0] == first, "of those that were refuted, the one that was so longer ago"
    source.rows = [{"a": second, "b": second}] * 2
    seeds.doubt(15, second)
    assert await seeds.hash_of(15, 19) == (second, True), "what the nodes agree on counts"


# Sent is not included.

TAKEN = Submission(b"tx", "T", 13, timeout_ns=100, accepted=True)
FAILED = TransactionResult("T", 11, "sdk", "out of gas")
INCLUDED = TransactionResult("T", 0, "", "")


@pytest.mark.parametrize(("last", "height", "now", "result", "step"), [
    (None, 13, 0, None, Resend.NEW_BYTES),
    (replace(TAKEN, accepted=False), 13, 0, None, Resend.SAME_BYTES),
    (TAKEN, 13, 0, None, Resend.WAIT),
    (TAKEN, 14, 0, None, Resend.SAME_BYTES),
    (TAKEN, 15, 0, None, Resend.SAME_BYTES),
    (TAKEN, 14, 0, FAILED, Resend.NEW_BYTES),
    (TAKEN, 14, 0, INCLUDED, Resend.SAME_BYTES),
    (TAKEN, 14, 101, None, Resend.NEW_BYTES),
    (replace(TAKEN, known_at=14), 14, 0, None, Resend.SAME_BYTES),
    (replace(TAKEN, known_at=13), 14, 0, None, Resend.SAME_BYTES),
    (replace(TAKEN, known_at=13), 15, 0, None, Resend.NEW_BYTES),
    (replace(TAKEN, known_at=15), 15, 0, None, Resend.SAME_BYTES),
])  # fmt: skip
def test_what_no_block_took_is_sent_again_and_new_bytes_only_where_the_old_ones_cannot_be_it(
    last, height, now, result, step
):
    assert resend(last, height, now, result) is step


@pytest.mark.parametrize(("height", "left", "step"), [
    (15, 5, Resend.SAME_BYTES), (16, 4, Resend.SAME_BYTES), (17, 3, Resend.NEW_BYTES), (15, 1, Resend.NEW_BYTES),
])  # fmt: skip
def test_known_bytes_are_given_up_once_as_many_blocks_passed_as_are_left(height, left, step):
    assert resend(replace(TAKEN, known_at=14), height, 0, None, left) is step


def test_bytes_that_nodes_had_before_age_from_their_first_handing_over():
    assert TAKEN.handed_over(14, known_before=True).height == 13
    known = TAKEN.handed_over(14, known_before=True).handed_over(15, known_before=True)
    assert (known.height, known.known_at) == (13, 14)
    assert known.handed_over(16, known_before=False) == replace(TAKEN, height=16, first_at=14)


def test_bytes_that_a_node_takes_anew_at_each_block_are_given_up_once_more_blocks_passed_than_are_left():
    last = replace(TAKEN, accepted=False)
    steps = []
    for height in range(13, 20):
        steps.append(resend(last, height, 0, None, left=20 - height))
        last = last.handed_over(height, known_before=False)
    assert steps == [Resend.SAME_BYTES] * 4 + [Resend.NEW_BYTES] * 3


def test_bytes_age_from_the_height_of_the_node_that_took_them_as_far_as_it_is_plausible():
    assert TAKEN.handed_over(14, 15, known_before=False).height == 15
    assert TAKEN.handed_over(14, 0, known_before=False).height == 14
    assert TAKEN.handed_over(14, 999, known_before=False).height == 15
    assert TAKEN.handed_over(14, 15, known_before=True).known_at == 15


@pytest.mark.parametrize(("last", "height", "given_up"), [
    (None, 19, False),
    (TAKEN, 19, False),  # nodes have not reported yet that they have it
    (replace(TAKEN, known_at=14), 17, False),
    (replace(TAKEN, known_at=14), 18, True),
    (replace(TAKEN, height=17, known_at=18), 18, False),  # the next block includes it
    (replace(TAKEN, height=17, known_at=18), 19, True),
    (replace(TAKEN, height=18, known_at=19), 19, True),
])  # fmt: skip
def test_at_the_end_of_a_window_bytes_that_the_next_block_may_include_are_waited_for(last, height, given_up):
    assert is_last_chance(last, height, close=20) is given_up


def test_more_gas_follows_what_ran_out_of_it_and_a_message_is_alone_once_it_may_be_to_blame():
    out_of_gas = Attempts().next(FAILED, shared=True)
    assert (out_of_gas.gas_factor, out_of_gas.alone) == (2.5, False)
    failed = Attempts().next(TransactionResult("T", 1, "undefined", "invalid session ID"), shared=True)
    assert (failed.gas_factor, failed.alone) == (1.0, True)
    unknown = Attempts().next(shared=True)
    assert (unknown.gas_factor, unknown.alone) == (1.0, False)
    assert unknown.next(shared=True).gas_factor == 2.5
    assert unknown.next(shared=True).next(shared=True).alone


# The volume.


def test_a_volume_tells_long_before_it_is_full_and_keeps_space_for_seals(tmp_path):
    assert Space(100 << 20, 50 << 20, 1).problem == ""
    assert "enlarge it" in Space(100 << 20, 9 << 20, 1).problem
    assert "reserve for seals is in use" in Space(100 << 20, 50 << 20, 0).problem
    reserve = Reserve(tmp_path, size=4096)
    assert reserve.hold()
    assert (reserve.space().reserved, reserve.full) == (4096, False)
    assert reserve.release()
    assert (reserve.space().reserved, reserve.full, reserve.release()) == (0, True, False)
    assert reserve.maintain().reserved == 4096
    assert not reserve.full
