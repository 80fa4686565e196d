"""Stake and unstake transactions against those that the chain's own client made."""

import pytest

from corpus import load, unhex
from pocket.errors import DecodingError
from pocket.protocol.crypto.addresses import is_address
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket.protocol.pb import pocket_shared_pb2 as shared_pb
from pocket.protocol.transactions.build import GasPrice, Message, Timestamp, TransactionPlan, sign_transaction
from pocket.protocol.transactions.staking import (
    STAKE_SUPPLIER,
    Endpoint,
    Parties,
    StakedService,
    message_json,
    message_of_json,
    stake_message,
    unsigned_json,
    unstake_message,
)
from relayctl.stake_commands import signed_transaction

MULTISIG_KEY = "/cosmos.crypto.multisig.LegacyAminoPubKey"
ACCEPTED = load("staking/transactions")["cases"]
CASES = ACCEPTED + load("staking/refusals")["cases"]
# Written by hand, so that the client's code did not make them: an unknown field, an amount that is no number.
FOREIGN = {"unknown-field-in-message", "stake-not-a-number", "stake-negative", "stake-empty-amount"}


def ids(case):
    return case["id"]


def service(row):
    endpoints = tuple(
        Endpoint(
            e["url"],
            e["rpc_type"] if isinstance(e["rpc_type"], int) else shared_pb.RPCType.Value(e["rpc_type"]),
            tuple((shared_pb.ConfigOptions.Value(o["key"]), o["value"]) for o in e["configs"]),
        )
        for e in row["endpoints"]
    )
    return StakedService(
        row["service_id"], endpoints, tuple((s["address"], int(s["rev_share_percentage"])) for s in row["rev_share"])
    )


def built(row):
    fields = row["json"]
    if row["type_url"] != STAKE_SUPPLIER:
        return unstake_message(fields["signer"], fields["operator_address"])
    parties = Parties(fields["signer"], fields["owner_address"], fields["operator_address"])
    stake = fields.get("stake")
    return stake_message(
        parties, None if stake is None else int(stake["amount"]), tuple(map(service, fields["services"]))
    )


def upokt_only(case):
    return all((m["json"].get("stake") or {}).get("denom", "upokt") == "upokt" for m in case["messages"])


@pytest.mark.parametrize("case", [c for c in CASES if c["id"] not in FOREIGN and upokt_only(c)], ids=ids)
def test_messages_and_transactions_equal_the_clients_byte_for_byte(case):
    messages = tuple(built(row) for row in case["messages"])
    assert [(m.type_url, m.value.hex()) for m in messages] == [(r["type_url"], r["encoded"]) for r in case["messages"]]
    tx = case["tx"]
    if tx["fee_denom"] != "upokt":
        return
    plan = plan_of(tx, messages)
    signed = sign_transaction(plan, PrivateKey.from_hex(tx["private_key"]))
    assert signed.body_bytes.hex() == tx["body_bytes"]
    assert signed.auth_info_bytes.hex() == tx["auth_info_bytes"]
    assert signed.raw.hex() == tx["tx_raw"]
    assert signed.tx_hash == tx["tx_hash"]


def plan_of(tx, messages):
    stamp = tx["timeout_timestamp"]
    return TransactionPlan(
        messages, tx["chain_id"], tx["account_number"], tx["gas_limit"], int(tx["fee_amount"] or 0),
        None if stamp is None else Timestamp(stamp["seconds"], stamp["nanos"]),
        tx["memo"], tx["sequence"], tx["unordered"], tx["timeout_height"],
    )  # fmt: skip


@pytest.mark.parametrize("case", ACCEPTED, ids=ids)
def test_the_unsigned_form_is_what_the_node_decodes_and_reads_back_to_the_same_bytes(case):
    messages = tuple(Message(row["type_url"], unhex(row["encoded"])) for row in case["messages"])
    shown = unsigned_json(plan_of(case["tx"], messages))
    assert shown["body"] == case["tx"]["decoded_body"]
    assert tuple(message_of_json(row) for row in shown["body"]["messages"]) == messages
    assert shown["auth_info"]["fee"]["amount"] == [{"denom": "upokt", "amount": case["tx"]["fee_amount"]}]


@pytest.mark.parametrize("case", load("staking/multisig")["cases"], ids=ids)
def test_what_a_multisig_account_signed_is_the_unsigned_form_and_can_be_sent(case, tmp_path):
    unsigned = case["unsigned"]
    messages = tuple(map(message_of_json, unsigned["body"]["messages"]))
    fee = unsigned["auth_info"]["fee"]
    plan = TransactionPlan(
        messages, case["chain_id"], case["account_number"], int(fee["gas_limit"]), int(fee["amount"][0]["amount"]),
        None, "", case["sequence"], unordered=False,
    )  # fmt: skip
    assert unsigned_json(plan) == unsigned
    file = tmp_path / "signed.txt"
    file.write_text(f"{case['encoded']}\n")
    raw, gas_limit = signed_transaction(file)
    transaction = tx_pb.TxRaw.FromString(raw)
    assert transaction.body_bytes == sign_transaction(plan, PrivateKey.from_hex("01" * 32)).body_bytes
    info = tx_pb.AuthInfo.FromString(transaction.auth_info_bytes)
    assert (info.fee.amount[0].amount, gas_limit) == (fee["amount"][0]["amount"], int(fee["gas_limit"]))
    (signer,) = info.signer_infos
    assert (signer.public_key.type_url, signer.sequence) == (MULTISIG_KEY, case["sequence"])
    assert len(transaction.signatures[0]) > 2 * 64


@pytest.mark.parametrize("case", ACCEPTED, ids=ids)
def test_the_nodes_gas_price_gives_the_recorded_fee(case):
    tx = case["tx"]
    assert GasPrice.parse(tx["gas_price"]).fee_upokt(tx["gas_limit"]) <= int(tx["fee_amount"])
    assert all(is_address(address) for address in case["parties"].values())


@pytest.mark.parametrize(
    "fields", [{"@type": "/cosmos.bank.v1beta1.MsgSend"}, {"@type": STAKE_SUPPLIER, "stakes": 1}, {}]
)
def test_other_messages_are_refused(fields):
    with pytest.raises(DecodingError):
        message_of_json(fields)


def test_a_message_that_is_none_of_ours_has_no_unsigned_form():
    with pytest.raises(DecodingError, match="neither stakes"):
        message_json(Message("/cosmos.bank.v1beta1.MsgSend", b""))
    with pytest.raises(DecodingError, match="cannot be read"):
        message_json(Message(STAKE_SUPPLIER, b"\xff"))
