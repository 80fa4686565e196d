"""No claim or proof is paid for twice where a node can tell that it is in a block, and the books hold what was paid."""

import asyncio
from collections import Counter

import pytest
from prometheus_client import REGISTRY

from pocket.chain.model import TransactionResult
from pocket.protocol.transactions.build import transaction_hash
from pocket.protocol.transactions.decode import decode_tx
from sweep_faults import Fault
from sweep_life import Life, Script

pytestmark = pytest.mark.redis
SUBMISSION_FEE = 50
FEES = {"proof_request_probability": 1.0, "proof_missing_penalty": 1_000_000, "proof_submission_fee": SUBMISSION_FEE}
OUT_OF_GAS = (11, "sdk", "out of gas in location: WriteFlat; gasWanted: 1, gasUsed: 2: out of gas")
REFUSED = (1, "undefined", "failed to execute message; message index: 0: rpc error: code = Internal desc = who knows")
NO_FUNDS = (5, "sdk", "spendable balance 0upokt is smaller than 1upokt: insufficient funds")
FULL = (20, "sdk", "mempool is full")
EACH_ONCE = {"claim": 4, "proof": 4}


@pytest.fixture(scope="module")
def script():
    return Script(proof_params=FEES)


def included(chain):
    """Return how many claims and proofs succeeded in blocks."""
    rows = [decode_tx(row.raw) for row in chain.transactions.values() if not row.result.code]
    return Counter(claim=sum(len(row.claims) for row in rows), proof=sum(len(row.proofs) for row in rows))


def counted():
    """Return the fees that the metrics count."""
    rows = ({"message": message} for message in ("claim", "proof"))
    return sum(REGISTRY.get_sample_value("pocket_miner_fees_upokt_total", labels) or 0 for labels in rows)


class Forgetful(Life):
    """A life with a node that forgets at every block which bytes it had."""

    async def step(self):
        self.chain._known.clear()
        await super().step()


class Failing(Life):
    """A life in which something goes wrong with transactions from a height on."""

    def __init__(self, script, redis, height, begin):
        super().__init__(script, redis, Fault("none"))
        self._height, self._begin_failing = height, begin

    def _losses(self):
        self.booked = [row["details"].get("fees_upokt") for row in self.audit.outcomes()]
        return super()._losses()

    async def step(self):
        if self.chain.height + 1 == self._height:
            self._begin_failing(self.chain)
        await super().step()


@pytest.mark.parametrize(("first", "blocks"), [(12, 4), (16, 4)], ids=["claims", "proofs"])
@pytest.mark.parametrize("restart", [0, 1, 3])
async def test_while_no_node_shows_claims_one_that_is_known_to_be_in_a_block_is_not_sent_again(
    script, redis, first, blocks, restart
):
    asyncio.get_running_loop().set_debug(False)
    fault = Fault("chain", "unavailable", blocks=blocks, first_block=first, name="AllClaims")
    life = Life(script, redis, fault, first + restart if restart else 0)
    assert await life.run() == []
    assert included(life.chain) == EACH_ONCE


@pytest.mark.parametrize("first", [12, 16], ids=["claims", "proofs"])
async def test_neither_is_one_whose_timestamp_a_restarted_node_calls_used(script, redis, first):
    asyncio.get_running_loop().set_debug(False)
    life = Forgetful(script, redis, Fault("chain", "unavailable", blocks=4, first_block=first, name="AllClaims"))
    assert await life.run() == []
    assert included(life.chain) == EACH_ONCE


@pytest.mark.parametrize(
    ("where", "result"), [("fail", OUT_OF_GAS), ("fail", REFUSED), ("fail_before", NO_FUNDS)],
    ids=["gas", "message", "funds"],
)  # fmt: skip
@pytest.mark.parametrize("height", [13, 16], ids=["claims", "proofs"])
async def test_of_a_transaction_that_fails_in_a_block_the_books_hold_what_the_chain_took(
    script, redis, height, where, result
):
    asyncio.get_running_loop().set_debug(False)
    life, before = Failing(script, redis, height, lambda chain: getattr(chain.faults, where).append(result)), counted()
    assert await life.run() == []
    assert counted() - before == sum(life.booked)


@pytest.mark.parametrize("height", [13, 16], ids=["claims", "proofs"])
async def test_a_full_mempool_is_offered_the_same_bytes_again_because_another_may_have_taken_them(
    script, redis, height
):
    asyncio.get_running_loop().set_debug(False)

    def begin(chain):
        take = chain.broadcast

        def take_but_refuse(raw):
            take(raw)
            chain.broadcast, chain.faults.hold_blocks = take, 1
            return TransactionResult(transaction_hash(raw), *FULL)

        chain.broadcast = take_but_refuse

    life = Failing(script, redis, height, begin)
    assert await life.run() == []
    assert included(life.chain) == EACH_ONCE


async def test_a_claim_that_no_block_takes_is_booked_without_a_fee(script, redis):
    asyncio.get_running_loop().set_debug(False)
    life = Failing(script, redis, 13, lambda chain: setattr(chain.faults, "evict", 100))
    assert all(loss.startswith("claim_missed") for loss in await life.run())
    assert included(life.chain) == {"claim": 0, "proof": 0}
    assert life.booked == [None] * 4


class Held(Life):
    """A life in which a block takes no transactions, and the miner restarts at it."""

    def __init__(self, script, redis, restart, *, lost):
        super().__init__(script, redis, Fault("none"), restart)
        self.rows_lost = lost

    async def step(self):
        if self.chain.height + 1 == self.restart:
            self.chain.faults.hold_blocks = 1
            if self.rows_lost:
                await self.redis.delete(*map(self.keys.transactions, self.addresses))
        await super().step()


@pytest.mark.parametrize("lost", [False, True], ids=["", "lost in Redis"])
@pytest.mark.parametrize("restart", [14, 17], ids=["claims", "proofs"])
async def test_what_was_signed_before_a_restart_is_sent_and_not_signed_another_time(script, redis, restart, lost):
    asyncio.get_running_loop().set_debug(False)
    life = Held(script, redis, restart, lost=lost)
    assert await life.run() == []
    assert included(life.chain) == EACH_ONCE
