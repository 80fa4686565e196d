"""Positions of a log's relays in their streams."""

import pytest

from pocket.redis_store.log_positions import later


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
