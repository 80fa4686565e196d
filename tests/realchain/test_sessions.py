"""Whole sessions of three suppliers and two services on the real chain, with and without proofs, to the upokt."""

import asyncio
import signal

import pytest

pytestmark = [pytest.mark.realchain, pytest.mark.timeout(240)]

# Seven and ten have no common factor: over four sessions every window and every offset in it is met by some session.
EVERY_WINDOW = range(4, 56, 7)


async def test_every_relay_is_settled_once_and_paid_to_the_upokt(journey):
    await journey.run(1, {})


async def test_a_miner_that_is_killed_in_every_window_loses_and_pays_nothing_twice(journey, stack):
    async def restart():
        await asyncio.to_thread(stack.restart_miner)

    starts = stack.processes["miner"].starts
    await journey.run(4, dict.fromkeys(EVERY_WINDOW, restart))
    assert stack.processes["miner"].starts == starts + len(EVERY_WINDOW)


async def test_a_node_that_is_killed_or_stopped_in_every_window_costs_nothing(journey, node):
    how = [signal.SIGKILL, signal.SIGTERM]

    async def restart():
        how.reverse()
        await asyncio.to_thread(node.kill, how[0])
        await asyncio.to_thread(node.again)

    await journey.run(4, dict.fromkeys(EVERY_WINDOW, restart))
