"""How long a relayer's worker that ends waits for a Redis that is away."""

from hypothesis import given
from hypothesis import strategies as st

from pocket_relayer.process.worker import redis_drain_timeout

SECONDS = st.floats(0, 3600)


def test_redis_gets_the_time_that_running_requests_left_over():
    assert redis_drain_timeout(30.0, 0.5) == 29.5


def test_redis_gets_five_seconds_though_requests_took_all_the_time():
    assert redis_drain_timeout(30.0, 30.0) == 5.0
    assert redis_drain_timeout(0.0, 0.0) == 5.0


@given(SECONDS, SECONDS)
def test_the_whole_end_is_shorter_than_the_supervisor_waits(drain_seconds, spent):
    spent = min(spent, drain_seconds)
    assert spent + redis_drain_timeout(drain_seconds, spent) <= drain_seconds + 5.0 + 1e-6
