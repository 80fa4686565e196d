"""One of two nodes answers a query with a wrong value: the other one is asked, and the wrong answer is not kept."""

from dataclasses import replace

import grpc
import grpc.aio
import pytest

from pocket.chain.node_answer import HEIGHT_HEADER
from pocket.errors import ChainUnavailable, NotFound
from pocket.protocol.pb import cosmos_auth_v1beta1_pb2 as auth_pb
from pocket.protocol.pb import pocket_application_pb2 as application_pb
from pocket.protocol.pb import pocket_proof_pb2 as proof_pb
from pocket.protocol.pb import pocket_service_pb2 as service_pb
from pocket.protocol.pb import pocket_session_pb2 as session_pb
from pocket.protocol.pb import pocket_shared_pb2 as shared_pb
from pocket.protocol.pb import pocket_supplier_pb2 as supplier_pb
from pocket.protocol.pb import pocket_tokenomics_pb2 as tokenomics_pb
from pocket.protocol.relays.messages import SessionHeader
from pocket_localnet.hydration import hydrate
from pocket_relayer.limits.rejection import Rejected, RejectionReason
from pocket_relayer.pipeline.admission import Admission
from pocket_relayer.pipeline.session_context import SessionContexts
from world import address
from wrong_nodes import APP, SILENT, WORLD, Node, cached, localnet

pytestmark = pytest.mark.redis


def another_account(message):
    other = auth_pb.BaseAccount.FromString(message.account.value)
    other.address = address("other")
    message.account.value = other.SerializeToString()


def another_key(message):
    other = auth_pb.BaseAccount.FromString(message.account.value)
    other.pub_key.value = b"\x0a\x21" + b"\x02" * 33
    message.account.value = other.SerializeToString()


QUERIES = {
    "session": (
        ("/pocket.session.Query/GetSession", session_pb.QueryGetSessionResponse),
        lambda chain: chain.session(APP, "eth", 5),
        {
            "without suppliers": lambda m: m.session.ClearField("suppliers"),
            "without id": lambda m: m.session.header.ClearField("session_id"),
            "of another service": lambda m: setattr(m.session.header, "service_id", "base"),
            "of another application": lambda m: setattr(m.session.header, "application_address", address("other")),
            "of another application's stake": lambda m: setattr(m.session.application, "address", address("other")),
            "without stake": lambda m: m.session.application.ClearField("stake"),
            "with a stake that is no number": lambda m: setattr(m.session.application.stake, "amount", "1e9"),
            "with a stake without number": lambda m: m.session.application.stake.ClearField("amount"),
            "that begins later": lambda m: setattr(m.session.header, "session_start_block_height", 6),
            "that ended before": lambda m: setattr(m.session.header, "session_end_block_height", 4),
            "of other length": lambda m: setattr(m.session.header, "session_end_block_height", 11),
            "without blocks": lambda m: m.session.ClearField("num_blocks_per_session"),
            "without header": lambda m: m.session.ClearField("header"),
        },
    ),
    "params": (
        ("/pocket.shared.Query/ParamsAtHeight", shared_pb.QueryParamsAtHeightResponse),
        lambda chain: chain.shared_params(5),
        {
            "without granularity": lambda m: m.params.ClearField("compute_unit_cost_granularity"),
            "without blocks": lambda m: m.params.ClearField("num_blocks_per_session"),
        },
    ),
    "difficulty": (
        ("/pocket.service.Query/RelayMiningDifficultyAtHeight",
         service_pb.QueryGetRelayMiningDifficultyAtHeightResponse),
        lambda chain: chain.difficulty("eth", 5),
        {
            "without target": lambda m: m.relayMiningDifficulty.ClearField("target_hash"),
            "zero": lambda m: setattr(m.relayMiningDifficulty, "target_hash", bytes(32)),
            "short": lambda m: setattr(m.relayMiningDifficulty, "target_hash", b"\xff" * 31),
            "of another service": lambda m: setattr(m.relayMiningDifficulty, "service_id", "base"),
        },
    ),
    "units": (
        ("/pocket.service.Query/ComputeUnitsPerRelayAtHeight", service_pb.QueryComputeUnitsPerRelayAtHeightResponse),
        lambda chain: chain.compute_units_per_relay("eth", 5),
        {"none": lambda m: m.ClearField("computeUnitsPerRelay")},
    ),
    "places": (
        ("/pocket.session.Query/Params", session_pb.QueryParamsResponse),
        lambda chain: chain.num_suppliers_per_session(),
        {"none": lambda m: m.params.ClearField("num_suppliers_per_session")},
    ),
    "application": (
        ("/pocket.application.Query/Application", application_pb.QueryGetApplicationResponse),
        lambda chain: chain.application(APP),
        {
            "another": lambda m: setattr(m.application, "address", address("other")),
            "without stake": lambda m: m.application.ClearField("stake"),
            "with a stake that is no number": lambda m: setattr(m.application.stake, "amount", " 1 "),
            "with another coin": lambda m: setattr(m.application.stake, "denom", "atom"),
        },
    ),
    "supplier": (
        ("/pocket.supplier.Query/Supplier", supplier_pb.QueryGetSupplierResponse),
        lambda chain: chain.supplier(address("alice")),
        {
            "another": lambda m: setattr(m.supplier, "operator_address", address("other")),
            "without stake": lambda m: m.supplier.ClearField("stake"),
            "with a stake that is no number": lambda m: setattr(m.supplier.stake, "amount", "-1"),
        },
    ),
    "account": (
        ("/cosmos.auth.v1beta1.Query/Account", auth_pb.QueryAccountResponse),
        lambda chain: chain.account(APP),
        {"another": another_account, "of another key": another_key},
    ),
    "proof params": (
        ("/pocket.proof.Query/Params", proof_pb.QueryParamsResponse),
        lambda chain: chain.proof_params(),
        {
            "with a probability above one": lambda m: setattr(m.params, "proof_request_probability", 2.0),
            "with no probability": lambda m: setattr(m.params, "proof_request_probability", float("nan")),
            "with an amount that is none": lambda m: setattr(m.params.proof_submission_fee, "amount", "x"),
        },
    ),
    "tokenomics params": (
        ("/pocket.tokenomics.Query/Params", tokenomics_pb.QueryParamsResponse),
        lambda chain: chain.tokenomics_params(),
        {"that mint nothing": lambda m: setattr(m.params, "mint_ratio", 0.0)},
    ),
}  # fmt: skip
CASES = [(name, case) for name, (_, _, cases) in QUERIES.items() for case in cases]


async def kept(redis):
    return {name: await redis.get(name) async for name in redis.scan_iter("wrong:cache:*") if b"known" not in name}


@pytest.mark.parametrize(("name", "case"), CASES)
async def test_a_wrong_answer_is_replaced_by_another_nodes_and_kept_nowhere(redis, name, case):
    kind, query, cases = QUERIES[name]
    chain = localnet()
    bad = Node(chain, kind, cases[case])
    async with cached(redis, bad) as alone:
        with pytest.raises(ChainUnavailable):
            await query(alone)
        assert bad.asked[-1] == kind[0]
        assert (await kept(redis), len(alone._memory)) == ({}, 0)
    async with cached(redis, Node(chain), Node(chain)) as right:
        expected = await query(right)
    answers = await kept(redis)
    assert answers
    await redis.flushdb()
    async with cached(redis, bad, Node(chain)) as chain_client:
        assert await query(chain_client) == expected
    assert await kept(redis) == answers


@pytest.mark.parametrize(("name", "case"), CASES)
async def test_a_wrong_answer_that_redis_holds_is_not_used(redis, name, case):
    """A process of an older version may have written it."""
    kind, query, cases = QUERIES[name]
    chain = localnet()
    async with cached(redis, Node(chain)) as right:
        expected = await query(right)
    for key, raw in (await kept(redis)).items():
        if b"witness" not in key:
            message = kind[1].FromString(raw)
            cases[case](message)
            await redis.set(key, message.SerializeToString())
    async with cached(redis, Node(chain)) as other:
        assert await query(other) == expected


def denied(method, height):
    """Return what a node at a height answers for an entity that it does not have."""
    row = grpc.aio.Metadata((HEIGHT_HEADER, str(height)))
    if method.endswith("GetSession"):
        text, code = f"could not find app with address {APP}", grpc.StatusCode.INTERNAL
    else:
        text, code = "not found", grpc.StatusCode.NOT_FOUND
    return grpc.aio.AioRpcError(code, row, grpc.aio.Metadata(), text)


HEADER = SessionHeader(APP, "eth", "5" * 64, 1, 10)


@pytest.mark.parametrize("name", ["session", "difficulty", "application", "supplier", "account"])
@pytest.mark.parametrize(("at", "latest"), [(4, 0), (4, 1000), (997, 1000)])
async def test_a_statement_of_a_node_that_lags_is_none(redis, name, at, latest):
    kind, query, _ = QUERIES[name]
    async with cached(redis, Node(error=denied(kind[0], at))) as chain:
        chain.latest_height = lambda: latest
        expected = ChainUnavailable if latest or name in ("session", "difficulty") else NotFound
        with pytest.raises(expected):
            await query(chain)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("name", ["session", "supplier"])
async def test_a_relay_is_refused_only_if_no_node_leaves_its_session_open(redis, name, order):
    """One node states that there is no such entity, while the other one does not answer."""
    method = QUERIES[name][0][0]
    states = Node(error=denied(method, 1000))
    for other, reason in ((Node(error=SILENT), RejectionReason.CHAIN_UNAVAILABLE), (states, None)):
        async with cached(redis, *[states, other][::order]) as chain:
            contexts = SessionContexts(chain, lambda: 5, lambda: 0.0)
            if name == "supplier":
                if reason is None:
                    with pytest.raises(Rejected):
                        await contexts.supplier(address("alice"))
                else:
                    assert await contexts.supplier(address("alice")) is None
                continue
            with pytest.raises(Rejected) as caught:
                await contexts.of(HEADER)
            assert caught.value.reason is (reason or RejectionReason.SESSION_MISMATCH)


@pytest.mark.parametrize("name", ["application", "account"])
async def test_a_node_without_the_ring_of_a_session_that_the_chain_has_costs_no_relay_its_session(redis, name):
    chain, method = localnet(), QUERIES[name][0][0]

    async with cached(redis, Node(chain, method, error=denied(method, 6))) as client:
        header = (await client.session(APP, "eth", 5)).header
        with pytest.raises(Rejected) as caught:
            await SessionContexts(client, lambda: 6, lambda: 0.0).of(header)
        assert caught.value.reason is RejectionReason.CHAIN_UNAVAILABLE


async def test_units_of_the_present_are_read_only_if_no_healthy_node_knows_those_of_a_height(redis):
    text = "unknown method ComputeUnitsPerRelayAtHeight for service pocket.service.Query"
    old = grpc.aio.AioRpcError(grpc.StatusCode.UNIMPLEMENTED, grpc.aio.Metadata(), grpc.aio.Metadata(), text)
    async with cached(redis, Node(error=old), Node(error=SILENT)) as chain:
        with pytest.raises(ChainUnavailable):
            await chain.compute_units_per_relay("eth", 5)


def with_header(**fields):
    def change(message):
        for name, value in fields.items():
            setattr(message.session.header, name, value)

    return change


def other_suppliers(message):
    del message.session.suppliers[1:]
    message.session.suppliers[0].operator_address = address("other")


def no_gateways(message):
    del message.application.delegatee_gateway_addresses[:]


def without_key(message):
    other = auth_pb.BaseAccount.FromString(message.account.value)
    other.ClearField("pub_key")
    message.account.value = other.SerializeToString()


# Answers that no check of one answer can find wrong: they answer the query and are possible.
POSSIBLE = {
    "another session id": ("session", with_header(session_id="5" * 64)),
    "other suppliers": ("session", other_suppliers),
    "a short grace period": ("params", lambda m: setattr(m.params, "grace_period_end_offset_blocks", 0)),
    "other sessions": ("params", lambda m: setattr(m.params, "num_blocks_per_session", 4)),
    "other gateways": ("application", no_gateways),
    "an account that never signed": ("account", without_key),
}


def relay(chain):
    header = hydrate(chain.state, chain.block_hash, APP, "eth", 1).header
    return WORLD.request(header, address("alice"), b"{}", "http://gateway/"), header


async def outcome(admission, request, header):
    """Return None for an admitted relay, or why it was refused."""
    try:
        await admission.validate(request, header)
    except Rejected as rejected:
        return rejected.reason
    return None


def new_worker(client, height):
    return Admission(client, lambda: height, lambda: 0.0, generation=lambda: client.generation)


@pytest.mark.parametrize("case", POSSIBLE)
async def test_one_nodes_possible_but_wrong_answer_refuses_no_relay(redis, case):
    """Of three nodes, one is wrong: its cached answer is replaced by that of the others."""
    name, change = POSSIBLE[case]
    chain = localnet()
    while chain.height < 11:  # in the grace period of the first session
        chain.step()
    bad, (request, header) = Node(chain, QUERIES[name][0], change), relay(chain)
    async with cached(redis, bad, Node(chain), Node(chain)) as client:
        worker = new_worker(client, 11)
        outcomes = [await outcome(worker, request, header) for _ in range(3)]
        assert set(outcomes) <= {None, RejectionReason.CHAIN_UNAVAILABLE}
        assert outcomes[-1] is None, "the others' answer stays"
        asked = len(bad.asked)
        assert await outcome(new_worker(client, 11), request, header) is None, (
            "another worker has the corrected answers"
        )
        assert len(bad.asked) == asked


@pytest.mark.parametrize("case", POSSIBLE)
async def test_two_nodes_that_disagree_refuse_no_relay_and_leave_nothing_cached(redis, case):
    name, change = POSSIBLE[case]
    chain = localnet()
    while chain.height < 11:
        chain.step()
    request, header = relay(chain)
    async with cached(redis, Node(chain, QUERIES[name][0], change), Node(chain)) as client:
        for height in (10, 11, 11):
            assert await outcome(new_worker(client, height), request, header) in (
                None,
                RejectionReason.CHAIN_UNAVAILABLE,
            )


async def test_a_relay_that_all_nodes_refuse_is_refused_after_one_more_query_a_block(redis):
    chain = localnet()
    nodes, height = [Node(chain), Node(chain)], [6]
    request, header = relay(chain)
    forged = replace(request, payload=b"another")
    wrong = replace(header, session_id="5" * 64)
    async with cached(redis, *nodes) as client:
        admission = Admission(client, lambda: height[0], lambda: 0.0, generation=lambda: client.generation)
        for height[0] in (6, 7):
            for relayed, of, reason in (
                (forged, header, RejectionReason.INVALID_SIGNATURE), (request, wrong, RejectionReason.SESSION_MISMATCH),
            ):  # fmt: skip
                with pytest.raises(Rejected) as caught:
                    await admission.validate(relayed, of)
                assert caught.value.reason is reason
            asked = sum(len(node.asked) for node in nodes)
            for relayed, of in ((forged, header), (request, wrong)) * 5:
                with pytest.raises(Rejected):
                    await admission.validate(relayed, of)
            assert sum(len(node.asked) for node in nodes) == asked
