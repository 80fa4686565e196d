"""Waking the owner of a supplier: best effort, at most once a second, one blocking read for many shards."""

import pytest

from pocket.coordination.rendezvous import shard_of
from pocket.redis_store.connection import connect
from pocket.redis_store.notifications import NotificationReader, RelayNotifier
from pocket.redis_store.redis_keys import RedisKeys

pytestmark = pytest.mark.redis
KEYS = RedisKeys("wakes")


async def test_whoever_follows_a_shard_is_told_whose_relays_came(redis):
    reader = NotificationReader(redis, KEYS)
    assert await reader.read({0, 1}, 1) == set()
    notifier = RelayNotifier(redis, KEYS, int, clock=lambda: 0.0)
    await notifier.notify(["0", "1", "7"])
    assert await reader.read({0, 1}, 1) == {"0", "1"}
    assert await reader.read({0, 1}, 1) == set(), "a wake is told once"


async def test_a_busy_supplier_is_woken_at_most_once_a_second(redis):
    now = [0.0]
    notifier = RelayNotifier(redis, KEYS, lambda _: 3, clock=lambda: now[0])
    for now[0] in (0.0, 0.4, 0.9):
        await notifier.notify(["a"])
    assert await redis.xlen(KEYS.notifications(3)) == 1
    now[0] = 1.0
    await notifier.notify(["a", "b"])
    assert await redis.xlen(KEYS.notifications(3)) == 3


async def test_the_stream_of_wakes_stays_short_and_the_waker_forgets(redis, monkeypatch):
    monkeypatch.setattr("pocket.redis_store.notifications._REMEMBERED", 10)
    now = [0.0]
    notifier = RelayNotifier(redis, KEYS, lambda _: 0, clock=lambda: now[0])
    for number in range(1200):
        now[0] += 0.0001  # none of them is over
        await notifier.notify([f"s{number}"])
    assert 0 < await redis.xlen(KEYS.notifications(0)) <= 1000
    assert len(notifier._notified) == 10


async def test_what_came_before_a_shard_was_followed_is_not_told(redis):
    """Whoever begins to follow it looks at all its suppliers first."""
    notifier = RelayNotifier(redis, KEYS, lambda _: 5, clock=lambda: 0.0)
    await notifier.notify(["early"])
    reader = NotificationReader(redis, KEYS)
    assert await reader.read({5}, 1) == set()
    await RelayNotifier(redis, KEYS, lambda _: 5, clock=lambda: 0.0).notify(["late"])
    assert await reader.read({5}, 1) == {"late"}
    assert await reader.read(set(), 1) == set()
    assert await reader.read({5}, 1) == set(), "a shard that is followed again is new"


async def test_a_redis_that_is_away_costs_only_the_wake():
    away = connect("redis://127.0.0.1:1/0", timeout_seconds=0.2)
    await RelayNotifier(away, KEYS, lambda _: 0).notify(["a"])
    await away.aclose()


def test_every_supplier_has_one_shard():
    assert {shard_of(f"pokt1{n}", 4) for n in range(200)} == {0, 1, 2, 3}
    assert shard_of("pokt1x", 1) == 0
