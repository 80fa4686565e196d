import pytest

from corpus import header, load, numbered, unhex
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket.protocol.transactions.build import (
    GasPrice,
    Timestamp,
    TransactionPlan,
    adjusted_gas,
    create_claim_message,
    sign_transaction,
    submit_proof_message,
)

DATA = load("transactions")


def message(kind, case):
    supplier, session = case["supplier_operator_address"], header(case["session_header"])
    if kind == "claim":
        return create_claim_message(supplier, session, unhex(case["root_hash"]))
    return submit_proof_message(supplier, session, unhex(case["proof"]))


@pytest.mark.parametrize(("index", "case"), numbered(DATA["transactions"]))
def test_a_signed_transaction_equals_the_reference_byte_for_byte(index, case):
    messages = [message(case["kind"], row) for row in case["messages"]]
    for ours, row in zip(messages, case["messages"], strict=True):
        assert (ours.type_url, ours.value.hex()) == (row["type_url"], row["encoded"])
    timeout = case.get("timeout_timestamp")
    plan = TransactionPlan(
        messages=tuple(messages),
        chain_id=case["chain_id"],
        account_number=case["account_number"],
        gas_limit=case.get("gas_limit", 0),
        fee_upokt=None if case["simulate"] else int(case["fee_amount"]),
        timeout=Timestamp(timeout["seconds"], timeout["nanos"]) if case["unordered"] else None,
        memo=case["memo"],
        sequence=case["sequence"],
        unordered=case["unordered"],
        timeout_height=case["timeout_height"],
    )
    signed = sign_transaction(plan, PrivateKey.from_hex(case["private_key"]))
    assert signed.body_bytes.hex() == case["body_bytes"]
    assert signed.auth_info_bytes.hex() == case["auth_info_bytes"]
    assert signed.sign_doc_bytes.hex() == case["sign_doc_bytes"]
    assert signed.signature.hex() == case["signature"]
    assert signed.raw.hex() == case["tx_raw"]
    assert signed.tx_hash == case["tx_hash"]


@pytest.mark.parametrize(("index", "case"), numbered(DATA["fees"]))
def test_fees_round_up_and_gas_adjustment_truncates(index, case):
    assert str(GasPrice.parse(case["gas_price"]).fee_upokt(case["gas_limit"])) == str(case["fee_amount"])
    assert str(adjusted_gas(case["gas_limit"])) == str(case["gas_adjusted_1_7"])
