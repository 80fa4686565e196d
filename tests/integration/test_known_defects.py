"""Defects known from other relay miners that no other test shows to be absent here."""

import asyncio

import pytest

from pocket.redis_store.budgets import BudgetLimits, Budgets, Charge, ChargeResult
from pocket.redis_store.redis_keys import RedisKeys
from relays import relaying

pytestmark = pytest.mark.redis


@pytest.mark.parametrize("started", [20, 25, 40])
async def test_a_session_that_settled_while_the_miner_was_down_is_concluded_from_its_block(alice, started):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    await alice.to(19)
    alice.skip(started)
    assert alice.outcomes() == {}
    alice.start()
    await alice.decide()
    await alice.block()
    assert alice.outcomes()[header.session_id]["outcome"] == "settled"
    assert alice.outcomes()[header.session_id]["details"]["settled_upokt"] == 300


async def test_each_supplier_of_a_session_has_its_own_budget(redis):
    budgets = Budgets(redis, RedisKeys("budgets"), BudgetLimits())
    running = asyncio.create_task(budgets.run())
    charged = {
        supplier: [await budgets.charge(Charge(supplier, "s", 10, 30, 600, b"")) for _ in range(4)]
        for supplier in ("pokt1a", "pokt1b")
    }
    running.cancel()
    expected = [*[ChargeResult.CHARGED] * 3, ChargeResult.OVER_BUDGET]
    assert charged == {"pokt1a": expected, "pokt1b": expected}


async def test_neither_a_timeout_nor_a_client_that_leaves_counts_against_an_endpoint(redis, tmp_path):
    async with relaying(redis, tmp_path, timeout_seconds=0.5) as relayer:
        (endpoint,) = relayer.registry.get("eth").pools["jsonRpc"].endpoints
        relayer.backend.gate = asyncio.Event()
        status, _, _ = await relayer.send(relayer.request())
        assert (status, endpoint.failures) == (502, 0)
        relayer.backend.asked.clear()
        task = asyncio.create_task(relayer.send(relayer.request(body=b"2")))
        await relayer.backend.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        relayer.backend.gate.set()
        assert (await relayer.send(relayer.request(body=b"3")))[0] == 200
        assert endpoint.failures == 0
