"""What follows from the codes by which nodes refuse transactions (Cosmos SDK, types/errors)."""

import pytest

from pocket.protocol.transactions.broadcast_errors import BroadcastFailure, classify


@pytest.mark.parametrize(("code", "name", "cause"), [
    (2, "ErrTxDecode", BroadcastFailure.PROGRAMMING),
    (3, "ErrInvalidSequence", BroadcastFailure.RETRY),
    (4, "ErrUnauthorized", BroadcastFailure.ACCOUNT),
    (5, "ErrInsufficientFunds", BroadcastFailure.NO_FUNDS),
    (8, "ErrInvalidPubKey", BroadcastFailure.PROGRAMMING),
    (9, "ErrUnknownAddress", BroadcastFailure.PROGRAMMING),
    (11, "ErrOutOfGas", BroadcastFailure.MORE_GAS),
    (12, "ErrMemoTooLarge", BroadcastFailure.PROGRAMMING),
    (13, "ErrInsufficientFee", BroadcastFailure.FEE_TOO_LOW),
    (15, "ErrNoSignatures", BroadcastFailure.PROGRAMMING),
    (18, "ErrInvalidRequest", BroadcastFailure.PROGRAMMING),
    (19, "ErrTxInMempoolCache", BroadcastFailure.ACCEPTED_BEFORE),
    (20, "ErrMempoolIsFull", BroadcastFailure.MEMPOOL_FULL),
    (21, "ErrTxTooLarge", BroadcastFailure.TOO_LARGE),
    (30, "ErrTxTimeoutHeight", BroadcastFailure.NEW_TIMESTAMP),
    (32, "ErrWrongSequence", BroadcastFailure.ACCOUNT),
    (41, "ErrInvalidGasLimit", BroadcastFailure.TOO_LARGE),
    (42, "ErrTxTimeout", BroadcastFailure.NEW_TIMESTAMP),
    (111222, "ErrPanic", BroadcastFailure.RETRY),
])  # fmt: skip
def test_a_code_of_the_sdk_has_its_cause_and_the_same_code_of_a_module_has_none(code, name, cause):
    assert classify(code, "sdk", name) is cause
    assert classify(code, "undefined", name) is BroadcastFailure.RETRY
    assert classify(code, "proof", name) is BroadcastFailure.POISON
