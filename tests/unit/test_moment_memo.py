"""Results are remembered for the moment in which they were computed, and no longer."""

from pocket.runtime.moment_memo import MomentMemo


def test_a_result_is_forgotten_when_the_moment_changes():
    moment = [1, 10]
    memo = MomentMemo(lambda: tuple(moment))
    memo.put(memo.now(), "a", 5)
    assert (memo.now(), memo.get("a"), memo.get("b")) == ((1, 10), 5, None)
    moment[1] = 11
    assert (memo.now(), memo.get("a")) == ((1, 11), None)


def test_a_result_that_was_begun_in_an_earlier_moment_is_not_kept():
    moment = [1]
    memo = MomentMemo(lambda: tuple(moment))
    begun = memo.now()
    moment[0] = 2
    memo.now()
    memo.put(begun, "a", 5)
    assert memo.get("a") is None


def test_nothing_is_remembered_without_a_moment_or_beyond_the_limit():
    without = MomentMemo(None)
    without.put(without.now(), "a", 5)
    assert without.get("a") is None
    memo = MomentMemo(lambda: 1, capacity=2)
    for key in "abc":
        memo.put(memo.now(), key, 5)
    assert [memo.get(key) for key in "abc"] == [5, 5, None]
