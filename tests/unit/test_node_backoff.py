"""When a node of a Cluster that hangs is asked again."""

import asyncio
import contextlib

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from pocket.redis_store.connection import connect
from pocket.redis_store.node_backoff import NodeBackoff
from pocket.redis_store.store_errors import RedisUnavailable

NODE, OTHER = ("10.0.0.1", 6379), ("10.0.0.2", 6379)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def backoff(clock):
    return NodeBackoff(clock, timeout_seconds=2.0)


def refused(backoff, node):
    try:
        backoff.admit(node)
    except RedisConnectionError:
        return True
    return False


def times_out(backoff, clock, node):
    begun = backoff.admit(node)
    clock.now += 2.0
    backoff.timed_out(node, begun)


def test_a_node_that_timed_out_is_asked_by_one_command_after_a_pause_that_doubles(backoff, clock):
    for pause in (0.25, 0.5, 1.0, 1.0):
        times_out(backoff, clock, NODE)
        clock.now += pause - 0.01
        assert refused(backoff, NODE)
        assert not refused(backoff, OTHER)
        clock.now += 0.01
    backoff.admit(NODE)
    assert refused(backoff, NODE), "one command at a time"
    backoff.answered(NODE)
    assert not refused(backoff, NODE)
    assert not refused(backoff, NODE)


def test_a_command_that_never_ended_keeps_a_node_from_being_asked_only_for_its_deadline(backoff, clock):
    times_out(backoff, clock, NODE)
    clock.now += 0.25
    backoff.admit(NODE)
    clock.now += 1.99
    assert refused(backoff, NODE)
    clock.now += 0.01
    assert not refused(backoff, NODE)


def test_a_node_that_answers_others_meanwhile_does_not_hang(backoff, clock):
    begun = backoff.admit(NODE)
    clock.now += 1
    backoff.answered(NODE)
    clock.now += 1
    backoff.timed_out(NODE, begun)
    assert not refused(backoff, NODE)


def test_commands_that_waited_together_count_as_one_failure(backoff, clock):
    begun = [backoff.admit(NODE) for _ in range(20)]
    clock.now += 2
    for time in begun:
        backoff.timed_out(NODE, time)
    clock.now += 0.25
    assert not refused(backoff, NODE)


async def asked(backoff, error):
    with contextlib.suppress(type(error)), backoff.asked(NODE):
        raise error


async def test_after_a_cancelled_command_another_one_asks_after_the_pause(backoff, clock):
    times_out(backoff, clock, NODE)
    clock.now += 0.25
    await asked(backoff, asyncio.CancelledError())
    clock.now += 0.24
    assert refused(backoff, NODE)
    clock.now += 0.01
    assert not refused(backoff, NODE)


async def test_a_cancelled_command_from_before_the_failure_does_not_end_the_wait_for_another_one(backoff, clock):
    early = backoff.admit(NODE)
    times_out(backoff, clock, NODE)
    clock.now += 0.25
    backoff.admit(NODE)
    backoff.cancelled(NODE, early)
    clock.now += 1.0
    assert refused(backoff, NODE)


async def test_a_node_that_refuses_connections_does_not_hang(backoff, clock):
    times_out(backoff, clock, NODE)
    clock.now += 0.25
    await asked(backoff, RedisConnectionError("refused"))
    assert not refused(backoff, NODE)
    assert not refused(backoff, NODE)


def test_a_read_that_waits_for_news_does_not_keep_others_from_finding_out_that_a_node_answers(backoff, clock):
    backoff.admit(NODE, waits=True)
    times_out(backoff, clock, NODE)
    clock.now += 5.0
    with pytest.raises(RedisConnectionError):
        backoff.admit(NODE, waits=True)
    assert not refused(backoff, NODE)
    backoff.answered(NODE)
    backoff.admit(NODE, waits=True)


async def test_the_clients_own_reads_wait_for_news_only_where_they_block(monkeypatch):
    admitted = []
    client = connect("redis://127.0.0.1:1/0", timeout_seconds=0.1)

    def refuse(_, address, *, waits=False):
        del address
        admitted.append(waits)
        raise RedisConnectionError("not asked yet")

    monkeypatch.setattr(NodeBackoff, "admit", refuse)
    for options in ({"block": 5000}, {}):
        with pytest.raises(RedisUnavailable):
            await client.xread({"stream": "0-0"}, count=1, **options)
    assert admitted == [True, False]
