"""The bounds of a recorder's queue and commands, and the worst of several primaries."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket.redis_store import log_positions
from pocket.redis_store.budgets import BudgetLimits, Budgets, Charge, ChargeResult
from pocket.redis_store.log_positions import chunks
from pocket.redis_store.recorder_types import RecorderLimits
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.relay_recorder import RelayRecorder
from pocket.redis_store.server_info import RedisInfo, combine
from pocket.redis_store.store_errors import QueueFull, RedisUnavailable
from pocket.redis_store.write_ahead_log import WalRecord, WriteAheadLog

KEYS = RedisKeys("limits")
SIZES = st.lists(st.integers(0, 60), max_size=12)


def records(sizes):
    return [WalRecord("pokt1a", "s", b"header", bytes(size), 10) for size in sizes]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    made = WriteAheadLog(tmp_path_factory.mktemp("log"), "w")
    yield made
    made.close()


@given(sizes=SIZES)
async def test_a_queue_is_full_by_number_or_by_bytes_and_then_takes_nothing(log, sizes):
    recorder = RelayRecorder(None, KEYS, log, RecorderLimits(queue=5, queue_bytes=100))
    taken = []
    for record in records(sizes):
        full = len(taken) >= 5 or sum(taken) >= 100
        assert recorder.overloaded == full
        if full:
            with pytest.raises(QueueFull):
                recorder.submit(record)
        else:
            recorder.submit(record)
            taken.append(len(record.relay))
    assert recorder.waiting == len(taken)


@given(ratio=st.floats(0, 1))
def test_a_redis_above_its_high_water_mark_gets_no_further_relays(log, ratio):
    recorder = RelayRecorder(None, KEYS, log, RecorderLimits(memory_high_water_mark=0.5))
    recorder._memory_ratio = ratio
    assert recorder.overloaded == (ratio >= 0.5)


@given(sizes=SIZES)
def test_a_log_is_appended_again_in_order_by_commands_of_bounded_size(sizes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_positions, "BATCH_BYTES", 100)
        patch.setattr(log_positions, "_REPLAY_BATCH", 4)
        found = list(chunks(records(sizes)))
    assert [record for chunk in found for record in chunk] == records(sizes)
    for chunk in found:
        assert 1 <= len(chunk) <= 4
        assert sum(len(record.relay) for record in chunk[:-1]) < 100


info = st.builds(
    RedisInfo, st.sampled_from("ab"), st.booleans(), st.sampled_from(("noeviction", "allkeys-lru")),
    st.integers(0, 100), st.sampled_from((0, 50, 200)), st.integers(0, 9), st.integers(0, 9),
)  # fmt: skip


@given(st.lists(info, min_size=1, max_size=3))
def test_a_cluster_is_as_full_and_as_little_durable_as_its_worst_primary(rows):
    found = combine(rows)
    assert found.memory_ratio() == max(row.memory_ratio() for row in rows)
    assert found.append_only == all(row.append_only for row in rows)
    assert (found.eviction_policy == "noeviction") == all(row.eviction_policy == "noeviction" for row in rows)
    assert found.uptime_seconds == min(row.uptime_seconds for row in rows)


@pytest.mark.redis
@pytest.mark.parametrize(
    ("budget", "result"), [(0, ChargeResult.OVER_BUDGET), (10, ChargeResult.CHARGED), (None, ChargeResult.CHARGED)]
)
async def test_a_budget_of_nothing_pays_for_nothing_and_none_is_no_limit(redis, budget, result):
    budgets = Budgets(redis, KEYS)
    task = asyncio.create_task(budgets.run())
    assert await budgets.charge(Charge("pokt1a", "s", 10, budget, 600)) is result
    task.cancel()


async def test_a_request_that_was_refunded_while_redis_was_away_may_be_sent_again():
    class Away:
        async def evalsha(self, *_):
            raise RedisUnavailable("away")

    budgets = Budgets(Away(), KEYS, BudgetLimits(remembered=2))
    run = asyncio.create_task(budgets.run())
    charges = [Charge("alice", "s", 5, None, 600, b"\x01%d" % number) for number in range(2)]
    assert [budgets.charge_offline(row) for row in (*charges, *charges)] == (
        [ChargeResult.CHARGED] * 2 + [ChargeResult.REPLAYED] * 2
    )
    budgets.refund(charges[0])
    await budgets.drain()
    assert [budgets.charge_offline(row) for row in charges] == [ChargeResult.CHARGED, ChargeResult.REPLAYED]
    assert budgets.charge_offline(replace(charges[0], request_id=b"")) is ChargeResult.CHARGED
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
