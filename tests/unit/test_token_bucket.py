"""Token buckets: a rate with a burst."""

from hypothesis import given
from hypothesis import strategies as st

from pocket_relayer.limits.token_bucket import TokenBucket

STEPS = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 30)), min_size=1, max_size=30)


@given(st.integers(1, 5), st.integers(1, 20), STEPS)
def test_no_span_of_time_brings_more_than_the_burst_and_its_rate(rate, burst, steps):
    bucket, now, granted = TokenBucket(rate, burst), 0, []
    for seconds, number in steps:
        now += seconds
        before = bucket.available(now)
        taken = bucket.try_take(number, now)
        assert taken is (before >= number)
        assert bucket.available(now) == before - number * taken
        granted.append((now, number * taken))
    for index, (began, _) in enumerate(granted):
        for end in range(index, len(granted)):
            span = granted[end][0] - began
            assert sum(number for _, number in granted[index : end + 1]) <= burst + rate * span


@given(st.integers(1, 5), st.integers(1, 20), STEPS)
def test_a_flood_is_in_debt_until_the_rate_has_paid_it(rate, burst, steps):
    bucket, now, left = TokenBucket(rate, burst), 0, burst
    for seconds, number in steps:
        now += seconds
        left = min(burst, left + rate * seconds) - number
        assert bucket.take(number, now) is (left >= 0)
    bucket.add(2 * burst - left)
    assert bucket.available(now) == burst


def test_a_clock_that_goes_back_brings_no_tokens():
    bucket = TokenBucket(1.0, 10.0)
    bucket.take(10, 100.0)
    assert bucket.available(50.0) == 0
    assert bucket.available(101.0) == 1
