"""Rounds of tailing take bounded memory, and small relays are still read by the hundreds."""

from hypothesis import given
from hypothesis import strategies as st

from pocket_miner.ingest.batch_size import AdaptiveBatchSize


@given(st.integers(1, 2000), st.integers(300, 500_000), st.integers(0, 20))
def test_rounds_of_equal_relays_stay_below_eight_megabytes_or_ask_for_one_of_each(streams, size, rounds):
    batch_size = AdaptiveBatchSize()
    batch_size.observe(1, size)
    for _ in range(rounds):
        count = batch_size.next(streams)
        assert count == 1 or count * streams * size <= 8 * 1024 * 1024
        batch_size.observe(count * streams, count * streams * size)


def test_small_relays_are_soon_read_by_the_hundreds():
    batch_size = AdaptiveBatchSize()
    for _ in range(5):
        batch_size.observe(batch_size.next(20) * 20, batch_size.next(20) * 20 * 800)
    assert batch_size.next(1) == 500
    assert batch_size.next(20) == 500


def test_nothing_read_changes_nothing_and_one_large_relay_counts_at_once():
    batch_size = AdaptiveBatchSize()
    before = batch_size.next(3)
    batch_size.observe(0, 0)
    assert batch_size.next(3) == before
    batch_size.observe(1, 8 * 1024 * 1024)
    assert batch_size.next(1) == 1
