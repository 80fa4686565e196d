"""Claims of which the chain says that they can never succeed: alone, for now, and told for what they are."""

from dataclasses import replace

import pytest

from mine import mine
from world import World

pytestmark = pytest.mark.redis


@pytest.fixture
async def both(redis, tmp_path):
    """Start a miner with relays in two sessions that end together."""
    async with mine(redis, tmp_path, World(services=("eth", "base"))) as alice:
        eth, base = alice.header(service="eth"), alice.header(service="base")
        for header in (eth, base):
            await alice.record(alice.relays(header, 3))
        await alice.to(12)
        yield alice, eth, base


def price_in_history(alice, units):
    """Change the price of a running session on chain.

    Its claims can never succeed then.
    """
    service = alice.chain.state.services["base"]
    alice.chain.state.services["base"] = replace(service, history=((1, units),))


async def test_a_claim_that_the_chain_refuses_for_ever_takes_no_other_with_it_and_tells_why(both):
    alice, eth, base = both
    price_in_history(alice, 7)
    await alice.to(21)
    outcomes = alice.outcomes()
    assert outcomes[eth.session_id]["outcome"] == "settled"
    assert outcomes[base.session_id]["outcome"] == "claim_missed"
    assert "the claim was refused: Simulate:" in outcomes[base.session_id]["reason"]
    assert "mismatch: claim compute units" in outcomes[base.session_id]["reason"]


async def test_a_claim_that_the_chain_takes_after_all_is_settled(both):
    alice, eth, base = both
    price_in_history(alice, 7)
    await alice.to(13)
    assert (alice.miner.sessions[eth.session_id].seal is None, alice.miner.sessions[base.session_id].seal) == (
        False,
        None,
    )
    price_in_history(alice, 100)
    await alice.to(21)
    outcomes = alice.outcomes()
    assert {outcomes[h.session_id]["outcome"] for h in (eth, base)} == {"settled"}
    assert "refusal" not in outcomes[base.session_id]["details"]


async def test_a_sealed_claim_that_is_refused_when_it_is_sent_again_holds_up_no_other(both):
    alice, eth, base = both
    alice.chain.faults.evict = 1
    await alice.to(13)
    assert all(alice.miner.sessions[h.session_id].seal for h in (eth, base))
    price_in_history(alice, 7)
    await alice.to(21)
    outcomes = alice.outcomes()
    assert outcomes[eth.session_id]["outcome"] == "settled"
    assert outcomes[base.session_id]["outcome"] == "claim_missed"
    assert "the claim was refused" in outcomes[base.session_id]["reason"]
