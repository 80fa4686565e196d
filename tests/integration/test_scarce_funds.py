"""A balance that pays for some claims and proofs only: what is claimed can be proven, whatever else is not claimed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mine import STAKE, ended, mine
from pocket.protocol.transactions.build import GasPrice
from pocket.redis_store.seals import SessionSeal
from pocket_miner.submission.funds import Costs, balance_for, owed_upokt, payable
from world import World

PROOF = {"proof_request_probability": 1.0, "proof_missing_penalty": 10**6}
PRICE = GasPrice.parse("0.001upokt")
CLAIM, WITH_PROOF = 130, 530  # upokt, by typical gas


@pytest.mark.redis
@pytest.mark.parametrize(("balance", "paid"), [(180, 0), (WITH_PROOF - 1, 0), (WITH_PROOF, 1), (900, 1), (1100, 2)])
async def test_sessions_are_claimed_only_if_the_balance_pays_their_proofs_too(redis, tmp_path, balance, paid):
    async with mine(redis, tmp_path, World(services=("eth", "base")), proof_params=PROOF) as alice:
        alice.miner.claims.sender._gas_price = alice.miner.claims.fees.gas_price = PRICE
        headers = [alice.header(service=service) for service in ("eth", "base")]
        for number, header in zip((20, 30), headers, strict=True):
            await alice.record(alice.relays(header, number))
        await alice.to(12)
        alice.chain.state.balances[alice.supplier] = balance
        await alice.to(26)
        outcomes = [ended(alice, header) for header in headers]
        assert outcomes.count("settled") == paid
        assert set(outcomes) <= {"settled", "claim_missed"}
        assert alice.chain.state.suppliers[alice.supplier].stake_upokt == STAKE
        if paid == 1:
            assert outcomes[1] == "settled", "the one that earns more"
            assert "add funds" in alice.outcomes()[headers[0].session_id]["reason"]


@pytest.mark.redis
async def test_a_claim_that_needs_no_proof_is_sent_with_the_fee_of_a_claim(redis, tmp_path):
    never = {"proof_request_probability": 0.0, "proof_requirement_threshold": 10**12}
    async with mine(redis, tmp_path, proof_params=never) as alice:
        alice.miner.claims.sender._gas_price = alice.miner.claims.fees.gas_price = PRICE
        header = alice.header()
        await alice.record(alice.relays(header, 20))
        await alice.to(12)
        alice.chain.state.balances[alice.supplier] = CLAIM
        await alice.to(26)
        assert ended(alice, header) == "settled"


@pytest.mark.redis
@pytest.mark.parametrize(("balance", "paid"), [(1500, False), (2500, True)])
async def test_the_balance_pays_the_proof_of_a_sessions_largest_relay(redis, tmp_path, monkeypatch, balance, paid):
    """Each byte of a proof costs gas, and the chain draws which relay is proven."""
    async with mine(redis, tmp_path, proof_params=PROOF) as alice:
        alice.miner.claims.sender._gas_price = alice.miner.claims.fees.gas_price = PRICE
        header = await alice.recorded(20)
        request = alice.world.request
        monkeypatch.setattr(alice.world, "request", lambda header, to, body: request(header, to, body + bytes(20_000)))
        await alice.record(alice.relays(header, 1))
        await alice.to(12)
        alice.chain.state.balances[alice.supplier] = balance
        await alice.to(14)
        assert (alice.claim(header) is not None) is paid
        session = alice.miner.sessions[header.session_id]
        assert session.largest_relay > 20_000
        session.seal = session.seal or SessionSeal(header.session_id, bytes(48), bytes(32), 13, 1)
        owed = owed_upokt([session], 13, Costs(0, alice.miner.claims.fees.highest_proof_upokt))
        assert owed > 1500, "also once it is sealed"


class Nodes:
    """Nodes that state balances, the first one through the client."""

    def __init__(self, *balances):
        self.balances, self.asked = balances, 0

    async def balance_upokt(self, address):
        return self.balances[0]

    async def decoded_by_node(self, *_):
        self.asked += 1
        return dict(enumerate(self.balances[1:]))


async def test_no_single_nodes_balance_holds_a_claim_back():
    assert await balance_for(Nodes(5, 900), "pokt1a", 800) == 900
    assert await balance_for(Nodes(5, 6, 7), "pokt1a", 800) == 7
    assert await balance_for(Nodes(5), "pokt1a", 800) is None
    enough = Nodes(800, 5)
    assert (await balance_for(enough, "pokt1a", 800), enough.asked) == (800, 0)


@given(st.lists(st.integers(0, 1000), max_size=8), st.integers(-500, 4000))
def test_chosen_amounts_never_exceed_the_balance_and_none_that_fits_is_left(wanted, balance):
    chosen = payable(wanted, balance)
    rest = balance - sum(wanted[i] for i in chosen)
    assert rest >= 0 or not chosen
    assert all(wanted[i] > rest for i in range(len(wanted)) if i not in chosen)
