"""Compare the answers of several nodes to one broadcast."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from google.protobuf.message import DecodeError

from pocket.chain import convert
from pocket.chain.model import TransactionResult
from pocket.chain.node_answer import NodeAnswer
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket.protocol.transactions.build import transaction_hash

_ACCEPTED: Final = 0
_KNOWN: Final = 1
_REJECTED: Final = 2
_ORDER: Final = {("", 0): _ACCEPTED, ("sdk", 0): _ACCEPTED, ("sdk", 19): _KNOWN}
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
    """Return the best answer of the nodes to a transaction, None if none is evidence.

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


@dataclass(slots=True)
class BroadcastAnswers:
    """The answers to the transaction `raw` so far."""

    raw: bytes
    standing: list[NodeAnswer] = field(default_factory=list)
    """One for each node, over its standing connection."""
    others: list[bytes] = field(default_factory=list)
    """Those over new connections, each to a node that was asked over its standing one before."""
    accepted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once a mempool accepts the transaction: no later answer is better."""

    def add_standing(self, answer: NodeAnswer) -> None:
        """Add the answer over a standing connection."""
        self.standing.append(answer)
        if answer.error is None:
            self._check(answer.raw)

    def add_other(self, answer: bytes) -> None:
        """Add an answer over a new connection."""
        self.others.append(answer)
        self._check(answer)

    def _check(self, answer: bytes) -> None:
        result = _result(self.raw, answer)
        if result.tx_hash and _rank(result) == _ACCEPTED:
            self.accepted.set()

    def best(self) -> TransactionResult | None:
        """Return the best answer with the height of the nodes, None if none is evidence."""
        answered = [answer for answer in self.standing if answer.error is None]
        best = best_result(self.raw, [answer.raw for answer in answered], self.others)
        return None if best is None else replace(best, height=max((row.height for row in answered), default=0))
