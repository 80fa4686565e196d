"""Two nodes of the real chain behind one address, of which one hangs, lags or was just started again."""

import asyncio
import os
import signal

import aiohttp
import pytest

from balancer import balanced
from pocket.chain.client import ChainClient
from pocket.chain.comet import CometClient
from pocket.errors import ChainUnavailable, PocketError
from realchain import Cable, peer_of

pytestmark = [pytest.mark.realchain, pytest.mark.timeout(240)]


async def test_a_node_that_hangs_lags_or_was_just_started_behind_the_same_address_costs_nothing(
    journey, node, stack, tmp_path
):
    """The second node hangs for four blocks in a window of claims and is cut off for four in one of proofs.

    Later it is started again while it is cut off: it knows no block then.
    """
    async with Cable(node.peer_port) as cable:
        second = peer_of(node, tmp_path / "second", cable.port)
        await asyncio.to_thread(second.again)
        seen = set()

        async def hang():
            os.kill(second.pid, signal.SIGSTOP)

        async def resume():
            os.kill(second.pid, signal.SIGCONT)

        async def cut():
            cable.cut()

        async def look():
            seen.add(await state_of(second, journey))

        async def restart():
            cable.cut()
            await asyncio.to_thread(second.kill, signal.SIGTERM)
            await asyncio.to_thread(second.again)

        async def mend():
            cable.mend()

        acts = {12: hang, 16: resume, 20: cut, 23: look, 24: mend, 28: restart, 31: look, 32: mend}
        try:
            async with balanced([node.address, second.address]) as address:
                await asyncio.to_thread(stack.point_at, address)
                await journey.run(3, acts, again=True)
        finally:
            await asyncio.to_thread(stack.point_at, node.address)
            await asyncio.to_thread(second.kill)
        assert seen == {"lags", "knows no block"}


async def state_of(second, journey):
    """Return the state of the second node as it reports it."""
    async with aiohttp.ClientSession() as http, ChainClient([second.address]) as chain:
        behind = await journey.height() - (await CometClient([second.address], http).block()).height
        try:
            await chain.shared_params()
        except ChainUnavailable:
            return "knows no block"
        except PocketError as error:
            return str(error)
        return "lags" if behind >= 3 else f"{behind} blocks behind"
