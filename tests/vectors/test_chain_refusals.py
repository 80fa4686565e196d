"""Every recorded refusal: what our miner makes of it, and what our localnet answers to the same kind of fault."""

import pytest

from corpus import FOLDER, load
from pocket.protocol.transactions.broadcast_errors import Refusal, classify, failed_message_index

CASES = [case for chain in load("chain/refusals")["chains"] for case in chain["cases"]]
REFUSED = [c for c in CASES if c["broadcast"].get("tx_code")]
FAILED = [c for c in CASES if c["execution"] and c["execution"]["code"]]

BY_ID = {
    "wrong-chain-id": Refusal.ACCOUNT,
    "wrong-account-number": Refusal.ACCOUNT,
    "bad-signature": Refusal.ACCOUNT,
    "ordered-sequence-ahead": Refusal.ACCOUNT,
    "unordered-timeout-past": Refusal.NEW_TIMESTAMP,
    "unordered-timeout-11-minutes": Refusal.NEW_TIMESTAMP,
    "unordered-nonce-duplicate-in-mempool": Refusal.NEW_TIMESTAMP,
    "unordered-nonce-duplicate-after-inclusion": Refusal.NEW_TIMESTAMP,
    "unordered-without-timeout": Refusal.PROGRAMMING,
    "unordered-with-sequence": Refusal.PROGRAMMING,
    "same-bytes-again": Refusal.ACCEPTED_BEFORE,
    "same-bytes-after-inclusion": Refusal.ACCEPTED_BEFORE,
    "out-of-gas-at-broadcast": Refusal.MORE_GAS,
    "out-of-gas-at-execution": Refusal.MORE_GAS,
    "fee-larger-than-balance": Refusal.NO_FUNDS,
    "amount-larger-than-balance": Refusal.NO_FUNDS,
    "fee-below-minimum-gas-price": Refusal.FEE_TOO_LOW,
    "memo-too-long": Refusal.PROGRAMMING,
    "garbage": Refusal.PROGRAMMING,
    "account-unknown": Refusal.PROGRAMMING,
    "claim-during-session": Refusal.TOO_EARLY,
    "claim-grace-block": Refusal.TOO_EARLY,
    "claim-too-late": Refusal.TOO_LATE,
    "proof-too-early": Refusal.TOO_EARLY,
    "proof-too-late": Refusal.TOO_LATE,
    "proof-not-required": Refusal.NOT_REQUIRED,
    "proof-batch-not-required": Refusal.NOT_REQUIRED,
    "proof-without-claim": Refusal.POISON,
    "proof-empty": Refusal.POISON,
    "proof-garbage": Refusal.POISON,
    "proof-session-id-random": Refusal.POISON,
    "proof-supplier-not-selected": Refusal.POISON,
    "proof-of-other-supplier": Refusal.POISON,
    "proof-header-session-id": Refusal.POISON,
    "proof-response-no-signature": Refusal.POISON,
    "proof-difficulty": Refusal.POISON,
    "proof-operator-cannot-pay-submission-fee": Refusal.POISON,
    "proof-for-claim-with-other-end": Refusal.POISON,
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
        assert found is not Refusal.RETRY


@pytest.mark.parametrize("case", FAILED, ids=lambda case: case["id"])
def test_the_failing_message_is_named(case):
    log = case["execution"]["log"]
    expected = int(log.split("message index: ")[1].split(":")[0]) if "message index" in log else None
    assert failed_message_index(log) == expected


@pytest.mark.skipif(FOLDER.name != "data", reason="another corpus may lack a case; the committed one must not")
def test_every_named_case_was_recorded():
    assert set(BY_ID) <= {case["id"] for case in REFUSED + FAILED}
