"""Leases in Redis: whoever decided on a state that another one has changed since writes nothing."""

from datetime import UTC, datetime, timedelta

import pytest

from pocket.coordination.elector import LeaseRecord
from pocket.coordination.stores.lease_store import LeaseConflict, LeaseWrite
from pocket.redis_store.redis_leases import RedisLeaseStore

pytestmark = pytest.mark.redis
START = datetime(2026, 1, 1, tzinfo=UTC)


def held_by(holder, transitions):
    return LeaseRecord(holder, 15, START, START + timedelta(seconds=transitions), transitions)


async def test_of_several_that_decided_on_the_same_state_the_first_takes_each_lease(redis):
    one, other = (RedisLeaseStore(redis, "leases", call_seconds=5.0) for _ in range(2))
    for known in ({}, {"a": held_by("one", 1), "b": held_by("one", 1)}):
        seen = await other.read()
        assert {name: row.record for name, row in seen.items()} == known
        epoch = len(known) + 1
        first = await one.write("a", held_by("one", epoch), seen.get("a"))
        taken = await other.write_all([LeaseWrite(name, held_by("other", epoch), seen.get(name)) for name in "ab"])
        assert isinstance(taken[0], LeaseConflict)
        assert taken[1].record == held_by("other", epoch)
        assert (await one.read())["a"].record == first.record == held_by("one", epoch)
        await one.write("a", held_by("one", 1), first)
        await one.write("b", held_by("one", 1), taken[1])
