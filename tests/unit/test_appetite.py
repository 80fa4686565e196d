"""Rounds of tailing take bounded memory, and small relays are still read by the hundreds."""

from hypothesis import given
from hypothesis import strategies as st

from pocket_miner.ingest.batch_size import AdaptiveBatchSize


@given(st.integers(1, 2000), st.integers(300, 500_000), st.integers(0, 20))
def test_rounds_of_equal_relays_stay_below_eight_megabytes_or_ask_for_one_of_each(streams, size, rounds):
    appetite = AdaptiveBatchSize()
    appetite.had(1, size)
    for _ in range(rounds):
        count = appetite.count(streams)
        assert count == 1 or count * streams * size <= 8 * 1024 * 1024
        appetite.had(count * streams, count * streams * size)


def test_small_relays_are_soon_read_by_the_hundreds():
    appetite = AdaptiveBatchSize()
    for _ in range(5):
        appetite.had(appetite.count(20) * 20, appetite.count(20) * 20 * 800)
    assert appetite.count(1) == 500
    assert appetite.count(20) == 500


def test_nothing_read_changes_nothing_and_one_large_relay_counts_at_once():
    appetite = AdaptiveBatchSize()
    before = appetite.count(3)
    appetite.had(0, 0)
    assert appetite.count(3) == before
    appetite.had(1, 8 * 1024 * 1024)
    assert appetite.count(1) == 1
