"""When the chain's nodes agree, about which facts, and what is taken over from them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket.chain import agreement
from pocket.chain.agreement import (
    NodesDisagree,
    agreed_target,
    confirm_account,
    confirm_application,
    confirm_params,
    confirm_session,
    confirm_supplier,
    majority,
)
from pocket.chain.block_feed import BlockFeed
from pocket.chain.broadcast_answers import BroadcastAnswers
from pocket.chain.model import Block
from pocket.chain.node_answer import NodeAnswer
from pocket.chain.plausible_heights import Belief
from pocket.errors import ChainQueryRejected, ChainUnavailable, NotFound
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket.protocol.pb import pocket_application_pb2 as application_pb
from pocket.protocol.pb import pocket_service_pb2 as service_pb
from pocket.protocol.pb import pocket_session_pb2 as session_pb
from pocket.protocol.pb import pocket_shared_pb2 as shared_pb
from pocket.protocol.pb import pocket_supplier_pb2 as supplier_pb
from pocket.protocol.transactions.build import Timestamp

STAKE = {"denom": "upokt", "amount": "5"}
ABSENT, REFUSED, AWAY = NotFound("no such"), ChainQueryRejected("no"), ChainUnavailable("away")


def params(blocks):
    message = shared_pb.QueryParamsAtHeightResponse(
        params={"num_blocks_per_session": blocks, "compute_unit_cost_granularity": 1}
    )
    return message.SerializeToString()


class Nodes:
    """Nodes whose answers are given, and what is taken over from them."""

    def __init__(self, *answers):
        self.answers, self.asked, self.adopted = answers, [], []

    async def ask_every_node(self, method, request, height=0):
        self.asked.append((method.rpartition("/")[2], request))
        return {
            f"node {number}": NodeAnswer.of(row if isinstance(row, Exception) else (row, 9))
            for number, row in enumerate(self.answers)
        }

    async def adopt(self, method, request, raw):
        self.adopted.append(raw)


ONE, TWO = params(10), params(20)


@pytest.mark.parametrize(
    ("answers", "adopted", "error"),
    [
        ((ONE,), [ONE], None), ((ONE, ONE), [ONE], None), ((ONE, TWO, ONE), [ONE], None),
        ((TWO, ONE, ONE), [ONE], None),
        ((ONE, AWAY, ONE), [ONE], None), ((ABSENT, ABSENT, ONE), [None], None), ((ABSENT,), [None], None),
        ((ONE, TWO), [None], NodesDisagree), ((ONE, ABSENT), [None], NodesDisagree),
        ((ABSENT, REFUSED), [None], NodesDisagree), ((ONE, TWO, AWAY), [None], NodesDisagree),
        ((ONE, AWAY), [], ChainUnavailable), ((ONE, AWAY, AWAY), [], ChainUnavailable), ((), [], ChainUnavailable),
        ((AWAY, AWAY), [], ChainUnavailable), ((ONE, ONE, AWAY, AWAY), [], ChainUnavailable),
    ],
)  # fmt: skip
async def test_more_than_half_of_the_nodes_decide_and_what_they_dispute_is_forgotten(answers, adopted, error):
    nodes = Nodes(*answers)
    if error is None:
        await confirm_params(nodes, 7)
    else:
        with pytest.raises(ChainUnavailable) as caught:
            await confirm_params(nodes, 7)
        assert type(caught.value) is error
    assert nodes.adopted == adopted
    assert [(name, request.height) for name, request in nodes.asked] == [("ParamsAtHeight", 7)]


@given(st.lists(st.integers(0, 2), max_size=7))
def test_a_majority_is_of_all_votes(votes):
    index = majority(votes)
    most = max((votes.count(vote) for vote in votes), default=0)
    assert (index is not None) == (2 * most > len(votes))
    assert index is None or votes.count(votes[index]) == most


def supplier(**changes):
    row = {
        "operator_address": "a",
        "owner_address": "o",
        "stake": STAKE,
        "services": [{"service_id": "eth"}],
        **changes,
    }
    return supplier_pb.QueryGetSupplierResponse(supplier=row).SerializeToString()


def application(**changes):
    return application_pb.QueryGetApplicationResponse(
        application={"address": "a", "stake": STAKE, **changes}
    ).SerializeToString()


def session(number=1, suppliers=("a",), **header):
    row = {
        "application_address": "app", "service_id": "eth", "session_id": "s", "session_start_block_height": 1,
        "session_end_block_height": 10, **header,
    }  # fmt: skip
    return session_pb.QueryGetSessionResponse(session={
        "header": row, "session_id": row["session_id"], "session_number": number, "num_blocks_per_session": 10,
        "application": {"address": "app", "stake": STAKE},
        "suppliers": [{"operator_address": name, "stake": STAKE} for name in suppliers],
    }).SerializeToString()  # fmt: skip


@pytest.mark.parametrize(
    ("confirm", "made", "change", "decides"),
    [
        (confirm_supplier, supplier, {"stake": {"denom": "upokt", "amount": "9"}}, False),
        (confirm_supplier, supplier, {"unstake_session_end_height": 20}, True),
        (confirm_supplier, supplier, {"services": [{"service_id": "base"}]}, True),
        (confirm_application, application, {"stake": {"denom": "upokt", "amount": "9"}}, False),
        (confirm_application, application, {"delegatee_gateway_addresses": ["g"]}, True),
    ],
)
async def test_nodes_agree_about_what_decides_and_not_about_the_rest(confirm, made, change, decides):
    one = made()
    nodes = Nodes(one, made(**change))
    if decides:
        with pytest.raises(NodesDisagree):
            await confirm(nodes, "a")
    else:
        await confirm(nodes, "a")
    assert nodes.adopted == [None if decides else one]


@pytest.mark.parametrize(
    ("change", "decides"),
    [
        ({}, False), ({"number": 2}, False), ({"suppliers": ("b",)}, True), ({"suppliers": ("a", "b")}, True),
        ({"session_id": "t"}, True), ({"session_end_block_height": 20}, True),
    ],
)  # fmt: skip
async def test_a_session_is_its_header_and_its_suppliers_and_has_its_params_confirmed_too(change, decides):
    nodes = Nodes(session(), session(**change))
    if decides:
        with pytest.raises(NodesDisagree):
            await confirm_session(nodes, "app", "eth", 7)
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(agreement._FACTS, agreement._PARAMS, lambda raw: "the same params")
        await confirm_session(nodes, "app", "eth", 7)
    (_, asked), (name, also) = nodes.asked
    assert (asked.application_address, asked.service_id, asked.block_height) == ("app", "eth", 7)
    assert (name, also.height) == ("ParamsAtHeight", 7)


async def test_an_account_is_asked_for_by_its_address():
    nodes = Nodes(ABSENT)
    await confirm_account(nodes, "pokt1a")
    assert [(name, request.address) for name, request in nodes.asked] == [("Account", "pokt1a")]


def difficulty(target):
    row = {"service_id": "eth", "block_height": 1, "target_hash": bytes([target]) * 32}
    return service_pb.QueryGetRelayMiningDifficultyAtHeightResponse(relayMiningDifficulty=row).SerializeToString()


@pytest.mark.parametrize(
    ("targets", "agreed"),
    [((), None), ((5,), 5), ((5, 5, 9), 5), ((9, 5, 5), 5), ((5, 9), 9), ((9, 5), 9), ((5, 7, 9), 9), ((None, 5), 5),
     ((None, None), None)],
)  # fmt: skip
async def test_the_target_of_most_nodes_counts_and_the_one_that_records_most_where_they_disagree(targets, agreed):
    nodes = Nodes(*(AWAY if target is None else difficulty(target) for target in targets))
    assert await agreed_target(nodes, "eth", 7) == (None if agreed is None else bytes([agreed]) * 32)
    assert nodes.adopted == ([] if agreed is None else [difficulty(agreed)])
    assert [(request.serviceId, request.blockHeight) for _, request in nodes.asked] == [("eth", 7)]


def broadcast(code, codespace="sdk"):
    response = tx_pb.BroadcastTxResponse()
    response.tx_response.code, response.tx_response.codespace = code, codespace if code else ""
    response.tx_response.txhash = "AB" * 32
    return response.SerializeToString()


@pytest.mark.parametrize(
    ("standing", "others", "code", "accepted"),
    [
        (((19, 5), (0, 9)), (), 0, True), (((0, 9), (19, 5)), (), 0, True), (((19, 5),), (0,), 0, True),
        (((5, 9),), (19,), 5, False), (((5, 9), (19, 3)), (19,), 19, False), (((5, 9),), (0,), 0, True),
        ((None, (13, 4)), (), 13, False), (((13, 4), None), (), 13, False),
    ],
)  # fmt: skip
def test_a_broadcast_has_the_best_answer_and_the_highest_block_of_the_nodes(standing, others, code, accepted):
    answers = BroadcastAnswers(b"raw")
    for row in standing:
        answers.add_standing(NodeAnswer.of(AWAY if row is None else (broadcast(row[0]), row[1])))
    for row in others:
        answers.add_other(broadcast(row))
    best = answers.best()
    assert (best.code, best.height) == (code, max(row[1] for row in standing if row is not None))
    assert answers.accepted.is_set() is accepted


@pytest.mark.parametrize("belief", Belief)
async def test_a_block_is_told_if_it_is_newer_or_takes_the_known_ones_place(belief):
    told, errors, block = [], [], Block(7, bytes(32), Timestamp(5, 0))

    class Source:
        async def block(self, height=None):
            if errors:
                raise errors[0]
            return block

    class Guard:
        height = 9

        def observe(self, observed, now):
            assert (observed, now) == (block, 3.0)
            return belief

    async def on_block(observed):
        told.append(observed)

    feed = BlockFeed(Source(), on_block, clock=lambda: 3.0, on_error=errors.append)
    feed._guard = Guard()
    assert await feed.refresh()
    assert told == [block] * (belief in (Belief.NEWER, Belief.REPLACED))
    errors.append(AWAY)
    assert not await feed.refresh()
    assert errors == [AWAY, AWAY]
