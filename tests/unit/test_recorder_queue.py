"""The account of relays that are not recorded yet."""

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket.redis_store.log_records import WalRecord
from pocket.redis_store.recorder_queue import RecorderQueue
from pocket.redis_store.recorder_types import RecorderLimits
from pocket.redis_store.store_errors import QueueFull, RedisUnavailable
from pocket.redis_store.supplier_groups import SupplierGroups
from pocket_relayer.pipeline import recently_mined

SUPPLIERS = ("alice", "bob", "carol")


def record(supplier, size=1):
    return WalRecord(supplier, "s", b"header", bytes(size), 10)


@given(st.lists(st.tuples(st.sampled_from(SUPPLIERS), st.integers(0, 9)), max_size=12), st.data())
async def test_whatever_is_settled_in_whichever_order_the_account_is_of_the_rest(relays, data):
    queue = RecorderQueue(RecorderLimits(queue=100, queue_bytes=10**6))
    assert queue.settled.is_set()
    for supplier, size in relays:
        queue.add(record(supplier, size))
    batch = []
    queue.fill(batch)
    assert (len(batch), len(queue)) == (len(relays), 0)
    rest = data.draw(st.permutations(batch))
    while rest:
        assert queue.suppliers == {waiting.record.supplier for waiting in rest}
        assert not queue.settled.is_set()
        settled = rest.pop()
        for _ in range(2):  # the second time changes nothing
            queue.settle([settled])
        with pytest.raises(RedisUnavailable, match="stopped"):
            settled.done.result()
    assert (queue.suppliers, queue.settled.is_set()) == (set(), True)


async def test_relays_that_were_taken_out_count_until_they_are_settled():
    queue = RecorderQueue(RecorderLimits(queue=10, queue_bytes=4))
    queue.add(record("alice", 4))
    taken = await queue.first()
    with pytest.raises(QueueFull):
        queue.add(record("bob"))
    queue.settle([taken])
    assert not queue.full
    queue.add(record("bob"))


async def test_the_first_relay_is_waited_for_and_a_batch_has_at_most_its_number():
    queue = RecorderQueue(RecorderLimits(batch=3))
    first = asyncio.create_task(queue.first())
    await asyncio.sleep(0)
    assert not first.done()
    for supplier in ("alice", "alice", "bob", "bob", "carol"):
        queue.add(record(supplier))
    batch = [await first]
    queue.fill(batch)
    assert [waiting.record.supplier for waiting in batch] == ["alice", "alice", "bob"]
    assert len(queue) == 2


async def test_relays_that_were_settled_before_keep_no_later_one_from_being_settled():
    queue, batch = RecorderQueue(RecorderLimits()), []
    for supplier in SUPPLIERS:
        queue.add(record(supplier))
    queue.fill(batch)
    queue.settle(batch[:1])
    queue.settle(batch)
    assert (queue.suppliers, queue.settled.is_set()) == (set(), True)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("fails", [False, True])
async def test_what_follows_a_call_is_done_once_whether_it_fails_or_is_the_only_one(number, fails):
    ended = []

    async def call():
        if fails:
            raise RedisUnavailable("away")

    works = [(call(), lambda row=row: ended.append(row)) for row in range(number)]
    with pytest.raises(RedisUnavailable) if fails else contextlib.nullcontext():
        await SupplierGroups(None).run(works)
    assert ended == list(range(number))


def test_the_newest_relays_are_remembered_and_a_repeated_one_is_known(monkeypatch):
    monkeypatch.setattr(recently_mined, "_MAX_RELAYS", 3)
    recent = recently_mined.RecentlyMined()
    digests = [bytes([number]) * 32 for number in range(5)]
    assert [recent.is_duplicate(digest) for digest in (*digests[:3], *digests[:3])] == [False] * 3 + [True] * 3
    assert not recent.is_duplicate(digests[3])
    assert [recent.is_duplicate(digests[at]) for at in (1, 2, 3, 0)] == [True, True, True, False]
