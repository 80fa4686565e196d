"""Compare the answers of several nodes to one broadcast."""

from collections.abc import Iterable
from typing import Final

from google.protobuf.message import DecodeError

from pocket.chain import convert
from pocket.chain.model import TransactionResult
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket.protocol.transactions.build import transaction_hash

_KNOWN: Final = 1
_REJECTED: Final = 2
_ORDER: Final = {("", 0): 0, ("sdk", 0): 0, ("sdk", 19): _KNOWN}
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


def best_result(raw: bytes, first: Iterable[bytes], later: Iterable[bytes] = ()) -> TransactionResult | None:
    """Return the best of the nodes' answers to the transaction `raw`, None if none is evidence.

    `later` answers came after the `first` ones. Where those reject the transaction, a later one that already knows it
    proves nothing: the same node may keep what it rejected. An answer without a transaction hash is no evidence.
    """
    results = [result for answer in first if (result := _result(raw, answer)).tx_hash]
    repeated = [result for answer in later if (result := _result(raw, answer)).tx_hash]
    if results and min(map(_rank, results)) == _REJECTED:
        repeated = [result for result in repeated if _rank(result) != _KNOWN]
    return min([*results, *repeated], key=_rank, default=None)


def _rank(result: TransactionResult) -> int:
    return _ORDER.get((result.codespace, result.code), _REJECTED)
