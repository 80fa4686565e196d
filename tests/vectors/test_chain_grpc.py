"""Our chain client over real gRPC against a server that replays the recorded answers of a real node."""

import base64

import grpc
import grpc.aio
import pytest

from corpus import load, unhex
from pocket.chain.client import ChainClient
from pocket.chain.failover import NodeAddress
from pocket.chain.node_answer import HEIGHT_HEADER
from pocket.errors import ChainQueryRejected, ChainUnavailable, MethodNotImplemented, NotFound
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket.protocol.pb import pocket_application_pb2 as application_pb
from pocket.protocol.pb import pocket_proof_pb2 as proof_pb
from pocket.protocol.pb import pocket_service_pb2 as service_pb
from pocket.protocol.pb import pocket_session_pb2 as session_pb

DATA = load("chain/grpc")
CALLS = {call["id"]: call for call in DATA["calls"]}
CODES = {code.name: code for code in grpc.StatusCode}


class Replay(grpc.GenericRpcHandler):
    """Answers with the recorded bytes or status of exactly the recorded request."""

    def __init__(self):
        self.answers = {}
        # Calls at a chosen height stand in where the same question was not asked of the latest state.
        for call in sorted(DATA["calls"], key=lambda call: call["request_height"] is None):
            self.answers[call["method"], unhex(call["request"])] = call

    def service(self, handler_call_details):
        method = handler_call_details.method

        async def respond(request, context):
            call = self.answers.get((method, request))
            if call is None:
                await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"not recorded: {method} {request.hex()}")
            if call["status"] != "OK":
                await context.abort(CODES[call["status"]], call["message"])
            await context.send_initial_metadata(((HEIGHT_HEADER, str(call["response_height"])),))
            return unhex(call["response"])

        return grpc.unary_unary_rpc_method_handler(respond)


@pytest.fixture
async def client():
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Replay(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with ChainClient([NodeAddress.parse(f"127.0.0.1:{port}", "http://127.0.0.1:1")]) as chain:
            yield chain
    finally:
        await server.stop(None)


def shown(identifier):
    return CALLS[identifier]["response_json"]


async def test_accounts_with_and_without_key(client):
    recorded = shown("auth-account-supplier")["account"]
    account = await client.account(recorded["address"])
    assert (account.number, account.sequence) == (int(recorded["account_number"]), int(recorded["sequence"]))
    assert account.public_key is not None
    module = shown("auth-account-module-account")["account"]["base_account"]
    assert (await client.account(module["address"])).public_key is None
    with pytest.raises(NotFound):
        await client.account(CALLS["auth-account-unknown"]["message"].split()[1])


async def test_balances_parameters_and_records(client):
    assert await client.balance_upokt(shown("auth-account-supplier")["account"]["address"]) == int(
        shown("bank-balance")["balance"]["amount"]
    )
    proof = shown("proof-params")["params"]
    params = await client.proof_params()
    assert params.proof_request_probability == proof["proof_request_probability"]
    assert params.proof_requirement_threshold_upokt == int(proof["proof_requirement_threshold"]["amount"])
    split = shown("tokenomics-params")["params"]
    tokenomics = await client.tokenomics_params()
    assert tokenomics.mint_ratio == split["mint_ratio"]
    assert tokenomics.supplier_share == split["mint_equals_burn_claim_distribution"]["supplier"]
    assert tokenomics.global_inflation_per_claim == split["global_inflation_per_claim"]
    live = await client.shared_params()
    assert live.num_blocks_per_session == int(shown("shared-params")["params"]["num_blocks_per_session"])
    assert await client.num_suppliers_per_session() == int(
        shown("session-params")["params"]["num_suppliers_per_session"]
    )
    record = shown("application")["application"]
    application = await client.application(record["address"])
    assert (application.stake_upokt, list(application.gateway_addresses)) == (
        int(record["stake"]["amount"]),
        record["delegatee_gateway_addresses"],
    )
    supplier = await client.supplier(shown("supplier")["supplier"]["operator_address"])
    assert supplier.service_ids == {s["service_id"] for s in shown("supplier")["supplier"]["services"]}
    assert len(supplier.history) == len(shown("supplier")["supplier"]["service_config_history"])


async def test_sessions_and_their_refusals(client):
    header = DATA["session"]
    recorded = shown("session-at-start")["session"]
    h = recorded["header"]
    start = int(h["session_start_block_height"])
    session = await client.session(h["application_address"], h["service_id"], start)
    assert session.header.session_id == h["session_id"]
    assert session.supplier_addresses == {s["operator_address"] for s in recorded["suppliers"]}
    assert header
    with pytest.raises(ChainQueryRejected, match="not staked"):
        await client.session(h["application_address"], "no-such-service", _height("session-unknown-service"))


def _height(identifier):
    return session_pb.QueryGetSessionRequest.FromString(unhex(CALLS[identifier]["request"])).block_height


async def test_claims_not_found_and_difficulty(client):
    difficulty = shown("difficulty-at-height-next-session")["relayMiningDifficulty"]
    request = service_pb.QueryGetRelayMiningDifficultyAtHeightRequest.FromString(
        unhex(CALLS["difficulty-at-height-next-session"]["request"])
    )
    found = await client.difficulty(request.serviceId, request.blockHeight)
    assert found.num_relays_ema == int(difficulty["num_relays_ema"])
    unknown = proof_pb.QueryGetClaimRequest.FromString(unhex(CALLS["claim-unknown-session"]["request"]))
    with pytest.raises(NotFound):
        await client.claim(unknown.session_id, unknown.supplier_operator_address)


async def test_node_information_and_a_block(client):
    assert await client.chain_id() == shown("cmt-node-info")["default_node_info"]["network"]
    assert await client.minimum_gas_price() == shown("node-config")["minimum_gas_price"]
    recorded = shown("cmt-block-with-claims")
    block = await client.block(int(recorded["block"]["header"]["height"]))
    assert str(block.height) == recorded["block"]["header"]["height"]
    assert block.hash == base64.b64decode(recorded["block_id"]["hash"])
    with pytest.raises(ChainUnavailable):
        await client.block(0)


async def test_an_unknown_method_is_unsupported(client):
    request, kind = application_pb.QueryParamsRequest(), application_pb.Params
    with pytest.raises(MethodNotImplemented):
        await client._call("/pocket.proof.Query/NoSuchMethod", request, kind)


async def test_broadcast_answers_are_results_not_errors(client):
    for identifier, code in (("tx-broadcast-garbage", 2), ("tx-broadcast-again", 19)):
        request = tx_pb.BroadcastTxRequest.FromString(unhex(CALLS[identifier]["request"]))
        if identifier == "tx-broadcast-garbage":
            result = await client.broadcast(request.tx_bytes)
            assert (result.code, result.codespace) == (code, "sdk")
    included = shown("tx-get-claim")["tx_response"]
    result = await client.transaction(included["txhash"])
    assert (result.code, result.height) == (0, int(included["height"]))
