"""A volume that cannot be used during a whole window: what Redis, the chain or a peer still has is claimed and proven.

The sessions of these lives end at block 10. Claims are accepted at blocks 12 to 15 and proofs at blocks 16 to 19.
"""

import asyncio

import pytest

from sweep_faults import Fault
from sweep_life import FIRST, Life, Script
from sweep_points import guarded

pytestmark = pytest.mark.redis
WINDOWS = {"claim window": (12, 4), "proof window": (16, 4), "until the settlement": (FIRST, 12)}


@pytest.fixture(scope="module")
def script():
    return Script()


@pytest.mark.parametrize("restarted", [False, True], ids=["", "restarted"])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("kind", ["I/O error", "read-only", "full", "locked"])
async def test_a_volume_that_cannot_be_used_for_a_whole_window_costs_nothing(redis, script, kind, window, restarted):
    asyncio.get_running_loop().set_debug(False)
    first, blocks = WINDOWS[window]
    fault = Fault("sqlite+files", kind, blocks=blocks, first_block=first)
    assert await guarded(Life(script, redis, fault, first if restarted else 0).run()) == []


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("kind", ["raises", "worker killed", "worker hung"])
async def test_processes_of_tries_that_cannot_be_used_for_a_whole_window_cost_nothing(redis, script, kind, window):
    asyncio.get_running_loop().set_debug(False)
    first, blocks = WINDOWS[window]
    assert await guarded(Life(script, redis, Fault("tries", kind, blocks=blocks, first_block=first)).run()) == []


async def test_a_lease_that_can_be_read_but_not_written_costs_no_proof_of_what_is_sealed(redis, script):
    asyncio.get_running_loop().set_debug(False)
    first, blocks = WINDOWS["proof window"]
    fault = Fault("leases", "conflict", blocks=blocks, first_block=first)
    assert await guarded(Life(script, redis, fault, first).run()) == []
