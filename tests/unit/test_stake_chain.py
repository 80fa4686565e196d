"""What staking reads, signs and concludes from chain nodes: nothing is given up while it may be included."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket.chain.model import Account, Block, ServiceConfig, StakedSupplier, StakingParams, TransactionResult
from pocket.chain.node_answer import NodeAnswer
from pocket.errors import ChainQueryRejected, ChainUnavailable, NotFound
from pocket.protocol.pb import pocket_supplier_pb2 as supplier_pb
from pocket.protocol.sessions.windows import SharedParams
from pocket.protocol.transactions.build import Timestamp, transaction_hash
from pocket.protocol.transactions.staking import Parties, stake_message
from pocket.staking.chain import (
    SETTLED_SECONDS,
    VALID_SECONDS,
    SentOutcome,
    StakeChain,
    TransactionWouldFail,
    lane_of,
)
from pocket.staking.effective import effective_services, next_session_start
from pocket.staking.stake_model import StakeChange, StakeCost, StakePlan, StakeState
from world import address, key

ALICE = address("alice")
SECOND = 1_000_000_000
NOW = 1_800_000_000 * SECOND
PLAN = StakePlan(
    StakeState.CHANGE, "TopUp", changes=(StakeChange.TOP_UP,), plan_hash="a" * 32, gas_limit=130_000,
    messages=(stake_message(Parties(ALICE, ALICE, ALICE), 5, ()),), cost=StakeCost(4_000_000, 1_000_000, 7),
)  # fmt: skip


def stated(amount=5, services=("eth",), height=9):
    """Return a node's record of the supplier."""
    message = supplier_pb.QueryGetSupplierResponse(supplier={
        "operator_address": ALICE, "owner_address": ALICE, "stake": {"denom": "upokt", "amount": str(amount)},
        "services": [{"service_id": name} for name in services],
    })  # fmt: skip
    return NodeAnswer(message.SerializeToString(), height)


def failed(error, height=9):
    return NodeAnswer(error=error, height=height)


class Chain:
    """Nodes and blocks as the test sets them."""

    def __init__(self):
        self.height, self.time, self.nodes, self.gas, self.found = 9, NOW, {"one": stated()}, 100_000, NotFound("no")
        self.answer = TransactionResult("AA", 0, "", "")
        self.params, self.sent = 0, []
        self.staking = StakeChain(self, SimpleNamespace(block=self.block), "pocket")

    async def block(self):
        return Block(self.height, bytes(32), Timestamp.of_nanoseconds(self.time))

    async def staking_params(self):
        self.params += 1
        return StakingParams(3, 1)

    async def shared_params(self, height):
        assert height == self.height
        return SharedParams()

    async def balance_upokt(self, account):
        return 77 if account == address("owner") else 0

    async def ask_every_node(self, method, request):
        assert (method, request.operator_address) == ("/pocket.supplier.Query/Supplier", ALICE)
        return self.nodes

    async def account(self, account):
        return Account(account, 4, 5, None)

    async def simulate(self, raw):
        if isinstance(self.gas, Exception):
            raise self.gas
        return self.gas

    async def broadcast(self, raw):
        self.sent.append(raw)
        return self.answer

    async def transaction(self, tx_hash):
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


def snapshot(chain, since=0):
    return asyncio.run(chain.staking.snapshot(ALICE, address("owner"), since))


def test_a_snapshot_has_everything_as_of_one_block_and_reads_params_once_for_it():
    chain = Chain()
    for _ in range(3):
        found = snapshot(chain)
    assert (found.chain_id, found.height, found.balance_upokt) == ("pocket", 9, 77)
    assert (found.supplier.stake_upokt, found.params, found.shared) == (5, StakingParams(3, 1), SharedParams())
    assert chain.params == 1
    chain.height = 10
    snapshot(chain)
    assert chain.params == 2


@pytest.mark.parametrize("turned", [False, True])
def test_services_are_those_of_the_node_that_states_them(turned):
    chain, rows = Chain(), [stated(services=()), stated(services=("eth",))]
    chain.nodes = {str(number): row for number, row in enumerate(rows[::-1] if turned else rows)}
    assert snapshot(chain).supplier.service_ids == {"eth"}


@pytest.mark.parametrize(
    ("nodes", "since", "outcome"),
    [
        ([stated()], 9, 5), ([stated()], 10, "needed as of 10"), ([stated(height=8)], 9, "as of block 9 or later"),
        ([stated(height=8), stated(6)], 9, 6), ([stated(), stated(6)], 0, "disagree"), ([stated(), stated()], 0, 5),
        ([failed(NotFound("no"))], 0, None), ([failed(NotFound("no")), stated()], 0, "disagree"),
        ([failed(ChainUnavailable("down"))], 0, "returned the stake"),
        ([failed(ChainUnavailable("down")), stated()], 0, 5),
        ([NodeAnswer(b"\xff\xff", 9)], 0, "returned the stake"), ([], 0, "none may be asked"),
        ([stated(services=()), stated(services=("eth",))], 0, 5),
    ],
)  # fmt: skip
def test_a_stake_is_what_every_node_that_is_far_enough_states(nodes, since, outcome):
    chain = Chain()
    chain.nodes = {str(number): answer for number, answer in enumerate(nodes)}
    if isinstance(outcome, str):
        with pytest.raises(ChainUnavailable, match=outcome):
            snapshot(chain, since)
        return
    found = snapshot(chain, since).supplier
    assert (None if found is None else found.stake_upokt) == outcome


def test_a_plan_is_signed_with_a_timeout_of_its_own_after_the_block_and_nothing_is_sent():
    chain = Chain()
    signed, timeout = asyncio.run(chain.staking.sign(PLAN, key("alice"), 123))
    assert timeout.nanoseconds == NOW + VALID_SECONDS * SECOND + 123
    assert transaction_hash(signed.raw)
    assert chain.sent == []
    again, _ = asyncio.run(chain.staking.sign(PLAN, key("alice"), 124))
    assert again.raw != signed.raw
    ordered = asyncio.run(chain.staking.unsigned(PLAN, ALICE))
    assert (ordered.account_number, ordered.sequence, ordered.unordered, ordered.timeout) == (4, 5, False, None)
    assert (ordered.gas_limit, ordered.fee_upokt, ordered.chain_id) == (130_000, 7, "pocket")


@pytest.mark.parametrize(
    ("gas", "failure"),
    [(100_000, None), (100_001, TransactionWouldFail), (ChainUnavailable("away"), ChainUnavailable),
     (ChainQueryRejected("out of funds"), TransactionWouldFail)],
)  # fmt: skip
def test_a_transaction_is_signed_only_if_its_gas_leaves_a_reserve(gas, failure):
    chain = Chain()
    chain.gas = gas
    if failure is None:
        asyncio.run(chain.staking.check(b"raw", 130_000))
    else:
        with pytest.raises(failure):
            asyncio.run(chain.staking.check(b"raw", 130_000))


@pytest.mark.parametrize(
    ("codespace", "code", "log"),
    [("", 0, ""), ("sdk", 19, ""), ("sdk", 13, "sdk 13: words"), ("app", 19, "app 19: words")],
)
def test_what_is_sent_waits_whatever_a_mempool_says_and_known_bytes_are_no_trouble(codespace, code, log):
    chain = Chain()
    chain.answer = TransactionResult("AA", code, codespace, "words")
    found = asyncio.run(chain.staking.send(b"raw"))
    assert (found.outcome, found.log, chain.sent) == (SentOutcome.WAITING, log, [b"raw"])


EXPIRES = Timestamp.of_nanoseconds(NOW)
SETTLED = NOW + SETTLED_SECONDS * SECOND


@pytest.mark.parametrize(
    ("result", "time", "expires", "outcome", "height"),
    [
        (TransactionResult("AA", 0, "", "", height=7), SETTLED + 1, EXPIRES, SentOutcome.INCLUDED, 7),
        (TransactionResult("AA", 5, "sdk", "poor", height=7), NOW, EXPIRES, SentOutcome.FAILED, 7),
        (NotFound("no"), NOW, EXPIRES, SentOutcome.WAITING, 0),
        (NotFound("no"), SETTLED, EXPIRES, SentOutcome.WAITING, 0),
        (NotFound("no"), SETTLED + 1, EXPIRES, SentOutcome.EXPIRED, 9),
        (NotFound("no"), SETTLED + 10**18, None, SentOutcome.WAITING, 0),
    ],
)  # fmt: skip
def test_a_transaction_is_given_up_only_once_no_node_can_include_it_any_more(result, time, expires, outcome, height):
    chain = Chain()
    chain.found, chain.time = result, time
    found = asyncio.run(chain.staking.outcome("AA", expires))
    assert (found.outcome, found.height) == (outcome, height)
    assert found.log == ("sdk 5: poor" if outcome is SentOutcome.FAILED else "")


def test_lanes_tell_apart_suppliers_and_their_transactions_within_a_second():
    lanes = [lane_of(operator, last) for operator in ("a", "b", "c") for last in ("", "AA", "BB")]
    assert len(set(lanes)) == 9
    assert all(0 <= lane < SECOND for lane in lanes)
    assert lane_of("a", "AA") == lanes[1]


@given(st.integers(1, 10**6), st.integers(1, 60))
def test_a_message_of_the_next_block_serves_from_the_session_after_that_block(height, blocks):
    shared = SharedParams(num_blocks_per_session=blocks)
    start = next_session_start(shared, height)
    assert start > height + 1 or blocks == 1
    assert shared.session_start(start) == start
    assert shared.session_start(start - 1) == shared.session_start(height + 1)


@pytest.mark.parametrize(
    ("activates", "ends", "in_force"),
    [(1, 0, True), (11, 0, True), (12, 0, False), (1, 11, False), (1, 12, True), (11, 12, True), (21, 0, False)],
)
def test_services_in_force_from_the_next_session_count_pending_ones_and_no_closing_ones(activates, ends, in_force):
    row = ServiceConfig("eth", activates, ends)
    record = StakedSupplier(ALICE, ALICE, 5, frozenset(), 0, (row,))
    found = effective_services(record, SharedParams(), 5)
    assert [service.service_id for service in found] == ["eth"] * in_force
    closing = replace(record, history=(ServiceConfig("eth", 1, 11), ServiceConfig("eth", 11, 0)))
    assert len(effective_services(closing, SharedParams(), 5)) == 1
