"""Classify failed node calls by status code and text.

A failure that no row matches is transient. The texts are those of the chain, as recorded in `tests/vectors`, because
the handlers of its modules give no codes (docs/protocol/claims-and-proofs.md, section 6).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import grpc

from pocket.errors import ChainError, ChainQueryRejected, ChainUnavailable, FailureClass, MethodNotImplemented, NotFound

Code = grpc.StatusCode
_ANY: Final = frozenset(Code)
_ENTITIES: Final = frozenset({
    "Account", "Application", "Supplier", "Service", "Claim", "Proof", "Gateway", "GetTx",
    "RelayMiningDifficultyAtHeight", "ComputeUnitsPerRelayAtHeight",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Row:
    """One row: for these methods (none: all) and status codes, a text means a class."""

    failure: FailureClass
    codes: frozenset[grpc.StatusCode]
    text: re.Pattern[str]
    methods: frozenset[str] = frozenset()

    def matches(self, method: str, code: grpc.StatusCode, text: str) -> bool:
        return code in self.codes and (not self.methods or method in self.methods) and bool(self.text.search(text))


def _row(failure: FailureClass, codes: set[grpc.StatusCode], text: str, *methods: str) -> _Row:
    return _Row(failure, frozenset(codes) or _ANY, re.compile(text, re.IGNORECASE), frozenset(methods))


_GRPC_ROWS: Final = (
    _row(FailureClass.PRUNED_NODE, set(), r"\bpruned\b|version does not exist|lowest height is"),
    # A node answers every query with code 26 from the opening of its port until its first block.
    _row(FailureClass.LAGGING_NODE, set(), r"codespace sdk code 26\b|invalid height:|height in the future"),
    _row(FailureClass.LAGGING_NODE, set(), r"did not contain latest block height|failed to load state"),
    _row(FailureClass.LAGGING_NODE, set(), r"ahead of the last committed block|bigger then the chain length"),
    _row(FailureClass.WRONG_NODE, {Code.UNIMPLEMENTED}, r"unknown service pocket\."),
    _row(FailureClass.UNSUPPORTED, {Code.UNIMPLEMENTED}, r"unknown method|unknown service|method not found"),
    _row(FailureClass.ABSENT, {Code.NOT_FOUND}, r"not found", *_ENTITIES),
    _row(
        FailureClass.SESSION_NEVER, {Code.INTERNAL},
        r"could not find app with address|not staked for (requested )?service|no suppliers|not active|"
        r"application for session not found|suppliers not found", "GetSession",
    ),
    _row(FailureClass.SESSION_NEVER, {Code.INVALID_ARGUMENT}, r"invalid .*session|invalid service ID", "GetSession"),
    # A message is simulated after the block that opens its window, so a node that answers "too early" lags.
    _row(FailureClass.LAGGING_NODE, set(), r"current block height \(\d+\) is less than", "Simulate"),
    # Texts of message handlers during simulation, see pocket.protocol.transactions.broadcast_errors.
    _row(
        FailureClass.MESSAGE_NEVER, {Code.UNKNOWN, Code.INVALID_ARGUMENT, Code.INTERNAL, Code.FAILED_PRECONDITION},
        r"failed to execute message|with gas used: '|tx parse error|insufficient|ttl exceeds|tx timeout|"
        r"unordered nonce|signature verification failed|memo too large|out of gas|proof not required", "Simulate",
    ),
)  # fmt: skip

_RPC_ROWS: Final = (
    (FailureClass.LAGGING_NODE, re.compile(r"must be less than or equal to the current blockchain height")),
    (FailureClass.PRUNED_NODE, re.compile(r"lowest height is|could not find (results|block)")),
    (FailureClass.ABSENT, re.compile(r"tx \(\w+\) not found")),
)

_KINDS: Final[Mapping[FailureClass, type[ChainError]]] = {
    FailureClass.ABSENT: NotFound,
    FailureClass.UNSUPPORTED: MethodNotImplemented,
    FailureClass.SESSION_NEVER: ChainQueryRejected,
    FailureClass.MESSAGE_NEVER: ChainQueryRejected,
}


def classify_status(method: str, code: grpc.StatusCode, text: str) -> FailureClass:
    """Classify a gRPC status. `method` is the full or the short name."""
    name = method.rpartition("/")[2]
    return next((row.failure for row in _GRPC_ROWS if row.matches(name, code, text)), FailureClass.TRANSIENT)


def classify_rpc(text: str) -> FailureClass:
    """Classify the error text of a JSON-RPC answer."""
    return next((failure for failure, pattern in _RPC_ROWS if pattern.search(text)), FailureClass.TRANSIENT)


def error_of(
    failure: FailureClass,
    message: str,
    height: int = 0,
    nodes: tuple[str, ...] = (),
    unanswered: tuple[str, ...] = (),
) -> ChainError:
    """Build the typed error of a class."""
    kind = _KINDS.get(failure, ChainUnavailable)
    return kind(message, failure=failure, height=height, nodes=nodes, unanswered=unanswered)


def error_from_status(method: str, code: grpc.StatusCode, message: str, height: int = 0) -> ChainError:
    """Build the typed error for a gRPC status.

    `height` is that of the state that answered, 0 if it is unknown.
    """
    text = f"{method.rpartition('/')[2]}: {message[:500]}"
    return error_of(classify_status(method, code, message), text, height)
