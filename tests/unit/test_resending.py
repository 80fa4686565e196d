"""Whether a message that the chain does not show is sent again, with which bytes and how much gas."""

from hypothesis import given
from hypothesis import strategies as st

from pocket.chain.model import TransactionResult
from pocket_miner.sessions.submission import Attempts, Resend, Submission, resend

TIMEOUT = 1000
OUT_OF_GAS = TransactionResult("hash", 11, "sdk", "out of gas")
REFUSED = TransactionResult("hash", 5, "proof", "invalid")
INCLUDED = TransactionResult("hash", 0, "", "")
submissions = st.builds(
    Submission, st.just(b"raw"), st.just("hash"), st.integers(10, 20), st.sampled_from((0, TIMEOUT)), st.booleans(),
    st.sampled_from((0, 11, 15)),
)  # fmt: skip


@given(submissions, st.integers(10, 30), st.sampled_from((TIMEOUT - 1, TIMEOUT, TIMEOUT + 1)),
       st.sampled_from((None, INCLUDED, REFUSED, OUT_OF_GAS)), st.integers(0, 9))  # fmt: skip
def test_new_bytes_cost_a_second_fee_only_if_no_block_can_include_the_old_ones_or_one_did_in_vain(
    last, height, now, result, left
):
    failed = result in (REFUSED, OUT_OF_GAS)
    expired = last.timeout_ns == TIMEOUT and now > TIMEOUT
    kept_in_vain = last.accepted and 0 < last.known_at < height and height - last.height >= max(2, left)
    found = resend(last, height, now, result, left)
    assert (found is Resend.NEW_BYTES) == (failed or expired or kept_in_vain)
    if not last.accepted and not failed and not expired:
        assert found is Resend.SAME_BYTES, "no node may have them"


def test_nothing_was_sent_so_it_is_signed():
    assert resend(None, 10, 0, None) is Resend.NEW_BYTES


@given(st.lists(st.sampled_from((None, REFUSED, OUT_OF_GAS, "refused", "refused for gas")), max_size=40))
def test_gas_grows_only_for_messages_that_may_lack_it_and_a_fee_never_beyond_sixteen_times_it(steps):
    attempts = Attempts()
    for step in steps:
        before = attempts
        if isinstance(step, str):
            attempts = attempts.refused(more_gas=step == "refused for gas", shared=True)
        else:
            attempts = attempts.next(step, shared=True)
        assert before.gas_factor <= attempts.gas_factor <= 16
        if step in (REFUSED, "refused"):
            assert attempts.gas_factor == before.gas_factor
        assert attempts.number == before.number + 1
