"""Every recorded refusal: what our miner makes of it, and what our localnet answers to the same kind of fault."""

import pytest

from corpus import FOLDER, load
from pocket.protocol.transactions.broadcast_errors import BroadcastFailure, classify, failed_message_index

CASES = [case for chain in load("chain/refusals")["chains"] for case in chain["cases"]]
REFUSED = [c for c in CASES if c["broadcast"].get("tx_code")]
FAILED = [c for c in CASES if c["execution"] and c["execution"]["code"]]

BY_ID = {
    "wrong-chain-id": BroadcastFailure.ACCOUNT,
    "wrong-account-number": BroadcastFailure.ACCOUNT,
    "bad-signature": BroadcastFailure.ACCOUNT,
    "ordered-sequence-ahead": BroadcastFailure.ACCOUNT,
    "unordered-timeout-past": BroadcastFailure.NEW_TIMESTAMP,
    "unordered-timeout-11-minutes": BroadcastFailure.NEW_TIMESTAMP,
    "unordered-nonce-duplicate-in-mempool": BroadcastFailure.NEW_TIMESTAMP,
    "unordered-nonce-duplicate-after-inclusion": BroadcastFailure.NEW_TIMESTAMP,
    "unordered-without-timeout": BroadcastFailure.PROGRAMMING,
    "unordered-with-sequence": BroadcastFailure.PROGRAMMING,
    "same-bytes-again": BroadcastFailure.ACCEPTED_BEFORE,
    "same-bytes-after-inclusion": BroadcastFailure.ACCEPTED_BEFORE,
    "out-of-gas-at-broadcast": BroadcastFailure.MORE_GAS,
    "out-of-gas-at-execution": BroadcastFailure.MORE_GAS,
    "fee-larger-than-balance": BroadcastFailure.NO_FUNDS,
    "amount-larger-than-balance": BroadcastFailure.NO_FUNDS,
    "fee-below-minimum-gas-price": BroadcastFailure.FEE_TOO_LOW,
    "memo-too-long": BroadcastFailure.PROGRAMMING,
    "garbage": BroadcastFailure.PROGRAMMING,
    "account-unknown": BroadcastFailure.PROGRAMMING,
    "claim-during-session": BroadcastFailure.TOO_EARLY,
    "claim-grace-block": BroadcastFailure.TOO_EARLY,
    "claim-too-late": BroadcastFailure.TOO_LATE,
    "proof-too-early": BroadcastFailure.TOO_EARLY,
    "proof-too-late": BroadcastFailure.TOO_LATE,
    "proof-not-required": BroadcastFailure.NOT_REQUIRED,
    "proof-batch-not-required": BroadcastFailure.NOT_REQUIRED,
    "proof-without-claim": BroadcastFailure.POISON,
    "proof-empty": BroadcastFailure.POISON,
    "proof-garbage": BroadcastFailure.POISON,
    "proof-session-id-random": BroadcastFailure.POISON,
    "proof-supplier-not-selected": BroadcastFailure.POISON,
    "proof-of-other-supplier": BroadcastFailure.POISON,
    "proof-header-session-id": BroadcastFailure.POISON,
    "proof-response-no-signature": BroadcastFailure.POISON,
    "proof-difficulty": BroadcastFailure.POISON,
    "proof-operator-cannot-pay-submission-fee": BroadcastFailure.POISON,
    "proof-for-claim-with-other-end": BroadcastFailure.POISON,
}


def said(case):
    if case["broadcast"].get("tx_code"):
        b = case["broadcast"]
        return b["tx_code"], b["codespace"], b["raw_log"]
    e = case["execution"]
    return e["code"], e["codespace"], e["log"]


@pytest.mark.parametrize("case", REFUSED + FAILED, ids=lambda case: case["id"])
def test_every_recorded_refusal_gets_its_treatment(case):
    found = classify(*said(case))
    expected = BY_ID.get(case["id"])
    if expected is not None:
        assert found is expected
    elif case["group"] in ("claim", "proof"):
        # What handlers or the basic validation refuse is a window, a poison or a gas matter: never a blind retry.
        assert found is not BroadcastFailure.RETRY


@pytest.mark.parametrize("case", FAILED, ids=lambda case: case["id"])
def test_the_failing_message_is_named(case):
    log = case["execution"]["log"]
    expected = int(log.split("message index: ")[1].split(":")[0]) if "message index" in log else None
    assert failed_message_index(log) == expected


@pytest.mark.skipif(FOLDER.name != "data", reason="another corpus may lack a case; the committed one must not")
def test_every_named_case_was_recorded():
    assert set(BY_ID) <= {case["id"] for case in REFUSED + FAILED}
