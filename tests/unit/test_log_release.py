"""A log is kept until each of its relays is on a volume, or can never matter again."""

import pytest

from pocket.redis_store.log_positions import is_safe
from pocket.redis_store.write_ahead_log import Segment

PAIR = ("alice", "session")


def mirrored(tmp_path):
    """Return a segment all of whose relays are on a volume by the marks ("life@1/7-0", "")."""
    return Segment(
        tmp_path / "segment", appended={PAIR: "life@1/7-0"}, sessions={PAIR}, histories={"alice": "history"}
    )  # fmt: skip


@pytest.mark.parametrize("offset", ["life@1/7-0", "life@1/7-1", "life@1/8-0", "life@1/10-0"])
def test_a_log_whose_relays_are_on_a_volume_is_let_go(tmp_path, offset):
    assert is_safe(PAIR, mirrored(tmp_path), (offset, ""), "history")


@pytest.mark.parametrize(("marks", "history"), [
    (None, "history"), (("life@1/7-0", ""), None), (("", ""), "history"), (("life@1/6-9", ""), "history"),
    (("life@2/9-0", ""), "history"), (("later@1/9-0", ""), "history"), (("damaged", ""), "history"),
    (("life@1/7-0", ""), "another history"), (("life@1/6-9", "closed"), "history"),
])  # fmt: skip
def test_it_is_kept_where_anything_else_is_known(tmp_path, marks, history):
    assert not is_safe(PAIR, mirrored(tmp_path), marks, history)


@pytest.mark.parametrize("change", [
    {"unacknowledged": {PAIR}}, {"appended": {}}, {"histories": {}}, {"histories": {"alice": ""}},
])  # fmt: skip
@pytest.mark.parametrize("over", ["", "done/10"])
def test_relays_that_redis_did_not_acknowledge_are_kept_until_their_session_is_over(tmp_path, change, over):
    segment = mirrored(tmp_path)
    for name, value in change.items():
        setattr(segment, name, value)
    assert is_safe(PAIR, segment, ("life@1/7-0", over), "history") is bool(over)


@pytest.mark.parametrize("appended", [False, True])
def test_of_a_session_that_redis_rejected_only_relays_that_were_appended_before_are_kept(tmp_path, appended):
    segment = mirrored(tmp_path)
    segment.rejected = {PAIR}
    if not appended:
        segment.appended = {}
    assert is_safe(PAIR, segment, ("", ""), "history") is not appended
