"""Positions of a log's relays in their streams."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket.redis_store.log_positions import later, segment_took
from pocket.redis_store.write_ahead_log import Segment


@pytest.mark.parametrize(
    ("known", "new", "kept"),
    [
        (None, "a/5-1", "a/5-1"),
        ("a/5-1", "a/5-2", "a/5-2"),
        ("a/10-0", "a/9-7", "a/10-0"),
        ("a/10-0", "b/9-7", "b/9-7"),
    ],
)
def test_an_append_that_is_answered_late_does_not_move_a_position_back(known, new, kept):
    assert later(known, new) == kept


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=6))
def test_an_append_that_a_former_redis_answered_replaces_no_position_in_the_present_one(replies):
    segment, pair = Segment(Path("log")), ("pokt1a", "s")
    for is_present, number in replies:
        origin = "present" if is_present else "former"
        assert segment_took(segment, pair, f"{number}-1", origin, is_present) is None
    present = [number for is_present, number in replies if is_present]
    if present:
        assert segment.appended[pair] == f"present/{max(present)}-1"
    assert bool(segment.appended) == bool(replies)
