"""Claims and proofs of many sessions on a chain whose nodes take transactions of a bounded size.

Windows of these worlds: sessions of 10 blocks, claims in 12…16, proofs in 16…20, settlement in 20.
"""

import pytest

from mine import mine
from pocket.protocol.transactions.broadcast_errors import BroadcastFailure
from world import World

pytestmark = pytest.mark.redis

# One relay each: a proof with siblings would be larger or smaller by chance.
SERVICES = tuple(f"service-{number}" for number in range(5))
MANY_SERVICES = tuple(f"service-{number}" for number in range(14))
CLAIM, PROOF = "/pocket.proof.MsgCreateClaim", "/pocket.proof.MsgSubmitProof"


async def settled_by(alice, kind=PROOF):
    """Actions of the transactions of a kind, when every session is settled."""
    headers = [alice.header(service=service) for service in alice.world.services]
    for header in headers:
        await alice.record(alice.relays(header, 1))
    await alice.to(21)
    assert {row["outcome"] for row in alice.outcomes().values()} == {"settled"}
    assert len(alice.outcomes()) == len(headers)
    return [len(t.actions) for t in alice.chain.transactions.values() if t.actions[0] == kind]


async def test_claims_of_one_session_end_go_into_as_many_transactions_as_their_size_takes(redis, tmp_path):
    async with mine(redis, tmp_path, World(services=SERVICES)) as alice:
        alice.miner.claims.max_transaction_bytes = 3000
        assert await settled_by(alice, CLAIM) == [2, 2, 1]


async def test_claims_that_a_node_finds_too_large_together_are_sent_in_halves(redis, tmp_path):
    async with mine(redis, tmp_path, World(services=MANY_SERVICES)) as alice:
        alice.chain.max_transaction_bytes = 3500  # and nobody told the miner
        assert await settled_by(alice, CLAIM) == [7, 7]


async def test_of_several_transactions_of_claims_each_is_sent_again_with_its_own_bytes_by_the_next_owner(
    redis, tmp_path
):
    async with mine(redis, tmp_path, World(services=SERVICES)) as alice:
        alice.miner.claims.max_transaction_bytes = 3000
        alice.chain.faults.evict = 3
        for service in SERVICES:
            await alice.record(alice.relays(alice.header(service=service), 1))
        await alice.to(13)
        signed = {group.tx_raw for group in alice.audit.signed(alice.supplier, 10)}
        alice.start()
        await alice.to(15)
        assert {t.raw for t in alice.chain.transactions.values()} == signed
        assert len(signed) == 3
        await alice.to(21)
        assert [row["outcome"] for row in alice.outcomes().values()] == ["settled"] * len(SERVICES)


async def test_proofs_of_one_session_end_go_into_as_many_transactions_as_their_size_takes(redis, tmp_path):
    async with mine(redis, tmp_path, World(services=SERVICES)) as alice:
        alice.miner.proofs.max_transaction_bytes = 5500
        assert await settled_by(alice) == [2, 2, 1]


async def test_proofs_that_a_node_finds_too_large_together_are_sent_in_halves(redis, tmp_path):
    async with mine(redis, tmp_path, World(services=SERVICES)) as alice:
        # The claims of five sessions fit, their proofs do not, and nobody told the miner.
        await alice.to(2)
        alice.chain.max_transaction_bytes = 3500
        assert await settled_by(alice) == [2, 1, 2]


async def test_a_transaction_that_is_refused_does_not_take_the_others_with_it(redis, tmp_path):
    async with mine(redis, tmp_path, World(services=SERVICES)) as alice:
        alice.miner.proofs.max_transaction_bytes = 5500
        for service in SERVICES:
            await alice.record(alice.relays(alice.header(service=service), 1))
        await alice.to(15)
        alice.chain.faults.refuse.append((20, "sdk", "mempool is full"))
        await alice.block()
        assert alice.chain.height == 16
        sent = [s for s in alice.miner.sessions.values() if s.proof.sent is not None and s.proof.sent.accepted]
        assert len(sent) == 5, "the second and third transactions went out, and the first in halves"
        await alice.to(21)
        assert {row["outcome"] for row in alice.outcomes().values()} == {"settled"}
        assert BroadcastFailure.RETRY.name.lower() not in {row.get("reason") for row in alice.outcomes().values()}
