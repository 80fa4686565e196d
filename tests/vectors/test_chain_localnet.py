"""Our localnet against the recorded node: the same statuses for unknown and malformed questions, the same refusals."""

from datetime import UTC, datetime

import pytest

from corpus import load, unhex
from pocket.protocol.crypto.addresses import address_of
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket.protocol.pb import pocket_application_pb2 as application_pb
from pocket_localnet.genesis import Genesis
from pocket_localnet.grpc_service import METHODS, Abort, answer
from pocket_localnet.local_chain import LocalChain
from world import World

CALLS = [
    call
    for call in load("chain/grpc")["calls"]
    if call["method"] in METHODS and call["status"] != "OK" and call["request_height"] is None
]
# Answered from recorded transactions or sessions that a fresh localnet does not have.
STATEFUL = {"claim-gone", "tx-search-bad-query"}


@pytest.fixture(scope="module")
def chain():
    return LocalChain(World().genesis())


@pytest.mark.parametrize("call", [c for c in CALLS if c["id"] not in STATEFUL], ids=lambda call: call["id"])
def test_questions_without_answer_get_the_recorded_status(chain, call):
    with pytest.raises(Abort) as caught:
        answer(chain, call["method"], unhex(call["request"]))
    assert caught.value.code.name == call["status"]


def test_applications_are_listed_by_the_gateway_that_they_delegate_to(chain):
    def listed(gateway):
        request = application_pb.QueryAllApplicationsRequest(delegatee_gateway_address=gateway)
        raw, _ = answer(chain, "/pocket.application.Query/AllApplications", request.SerializeToString())
        return {row.address for row in application_pb.QueryAllApplicationsResponse.FromString(raw).applications}

    everyone = listed("")
    assert everyone == set(chain.state.applications)
    for gateway in {g for row in chain.state.applications.values() for g in row.gateway_addresses}:
        assert listed(gateway) == {a for a, row in chain.state.applications.items() if gateway in row.gateway_addresses}
    assert listed(address_of(b"\x02" * 33)) == set()


RECORD = next(c for c in load("chain/refusals")["chains"] if any(k["id"] == "wrong-chain-id" for k in c["cases"]))
ANTE = [c for c in RECORD["cases"] if c["group"] == "ante"]


def decoded(case):
    try:
        raw = tx_pb.TxRaw.FromString(unhex(case["tx_raw"]))
        return tx_pb.AuthInfo.FromString(raw.auth_info_bytes), tx_pb.TxBody.FromString(raw.body_bytes)
    except Exception:  # noqa: BLE001 - some recorded transactions are garbage on purpose
        return None, None


def ante_chain():
    """Return the recorded senders with account numbers, balances and sequences, at the block time."""
    accounts = {}
    for case in ANTE:
        auth, _ = decoded(case)
        if auth is None or not auth.signer_infos or case.get("account_number") is None:
            continue
        key = auth.signer_infos[0].public_key.value[2:]
        known = accounts.setdefault(
            address_of(key),
            {"public_key": key.hex(), "number": case["account_number"], "sequence": case.get("sequence")},
        )
        if case["id"] == "wrong-account-number":
            continue
        known["number"] = case["account_number"] if case["id"] != "signer-mismatch" else known["number"]
    text = next(c for c in ANTE if c["id"] == "unordered-timeout-past")["broadcast"]["raw_log"]
    moment = text.split("block time: ")[1].split(" +0000")[0]
    seconds, _, fraction = moment.partition(".")
    stamp = int(datetime.fromisoformat(seconds).replace(tzinfo=UTC).timestamp()) * 10**9 + int(fraction.ljust(9, "0"))
    genesis = Genesis.model_validate(
        {
            "chain_id": load("chain/relays")["sessions"][0]["chain_id"],
            "time": stamp // 10**9 - 1,
            "accounts": [
                {"address": a, "balance": 10**12, "public_key": row["public_key"], "number": row["number"]}
                for a, row in accounts.items()
            ],
        }
    )
    return LocalChain(genesis, first_height=RECORD["cases"][0]["height_at_broadcast"])


# Cases that need no state but the sender: nonces, sequences, balances and the checks before the messages run.
STATELESS = {
    "bad-signature",
    "control-unordered",
    "fee-larger-than-balance",
    "garbage",
    "gas-limit-zero",
    "memo-too-long",
    "no-messages",
    "no-signature",
    "ordered-timeout-height-past",
    "out-of-gas-at-broadcast",
    "same-bytes-again",
    "same-bytes-first",
    "unknown-critical-field",
    "unknown-message",
    "unordered-nonce-duplicate-in-mempool",
    "unordered-nonce-first",
    "unordered-timeout-11-minutes",
    "unordered-timeout-past",
    "unordered-with-sequence",
    "unordered-without-timeout",
    "wrong-chain-id",
}


def test_the_recorded_transactions_are_refused_with_the_recorded_codes():
    chain = ante_chain()
    found, wanted = {}, {}
    for case in ANTE:
        if case["id"] in STATELESS:
            result = chain.broadcast(unhex(case["tx_raw"]))
            found[case["id"]] = (result.code, result.codespace)
            wanted[case["id"]] = (case["broadcast"]["tx_code"], case["broadcast"]["codespace"])
    assert found == wanted
