"""Compare the answers of several nodes to one broadcast."""

from collections.abc import Iterable
from typing import Final

from google.protobuf.message import DecodeError

from pocket.chain import convert
from pocket.chain.model import TransactionResult
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket.protocol.transactions.build import transaction_hash

_ORDER: Final = {("", 0): 0, ("sdk", 0): 0, ("sdk", 19): 1}
"""Accepted first, then already known. Every rejection comes after."""
# A transaction response whose log is not UTF-8 (an unknown fee payer's raw address) cannot be parsed by the
# runtime. The node gives it code 9 (docs/protocol/claims-and-proofs.md, section 6).
_UNREADABLE_LOG_CODE: Final = 9


def _result(raw: bytes, answer: bytes) -> TransactionResult:
    try:
        return convert.transaction_result(tx_pb.BroadcastTxResponse.FromString(answer).tx_response)
    except DecodeError:
        log = "the node rejected the transaction with a log that is not UTF-8: unknown fee payer address"
        return TransactionResult(transaction_hash(raw), _UNREADABLE_LOG_CODE, "sdk", log)


def best_result(raw: bytes, answers: Iterable[bytes]) -> TransactionResult | None:
    """Return the best of the nodes' answers to the transaction `raw`, None if none is evidence.

    An answer without a transaction hash is no evidence.
    """
    results = [result for answer in answers if (result := _result(raw, answer)).tx_hash]
    return min(results, key=lambda result: _ORDER.get((result.codespace, result.code), 2), default=None)
