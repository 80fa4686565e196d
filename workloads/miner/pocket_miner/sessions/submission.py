"""When a claim or proof is sent again, and with which bytes: pure.

Sent is not included. The same bytes cost nothing more, however often they are handed over; new bytes may cost a second
fee, so the chain is asked before them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, TypeVar

from pocket.chain.model import TransactionResult

T = TypeVar("T")
LAST_BLOCKS: Final = 2  # of a window: there is no later block to wait for
_BLOCKS_FOR_INCLUSION: Final = 2
_GAS_STEP: Final = 2.5
_MOST_GAS_STEPS: Final = 3
_OUT_OF_GAS: Final = 11
_TOGETHER: Final = 2  # attempts after which nobody knows which of several messages is to blame


class Resend(Enum):
    """What to do with a claim or proof that the chain does not show."""

    WAIT = "wait"
    SAME_BYTES = "same bytes"
    NEW_BYTES = "new bytes"


@dataclass(frozen=True, slots=True)
class Submission:
    """A transaction that was handed to nodes.

    height: the latest one known when it was handed over. accepted: a node took it into its mempool; otherwise nobody
    answered, and some node may have it all the same. known_at: the height at which nodes first said that they had the
    bytes already; 0: they never said so.
    timeout_ns: block time after which it cannot be included; 0: unknown.
    """

    raw: bytes
    tx_hash: str
    height: int
    timeout_ns: int = 0
    accepted: bool = False
    known_at: int = 0

    def handed_over(self, height: int, *, known_before: bool) -> "Submission":
        """Return it as a node took it at a height. known_before: nodes had the bytes already, since the first time."""
        if known_before:
            return replace(self, accepted=True, known_at=self.known_at or height)
        return replace(self, height=height, accepted=True, known_at=0)


@dataclass(frozen=True, slots=True)
class Attempts:
    """How often a message was signed anew, and what became of the last transaction.

    alone: it shares its transaction with no other any more.
    """

    number: int = 0
    gas_steps: int = 0
    failed: str = ""
    alone: bool = False

    def next(self, result: TransactionResult | None = None, *, shared: bool = False) -> "Attempts":
        """Return the attempts once the last transaction is given up. result: of one that was included and failed."""
        out_of_gas = result is not None and result.codespace == "sdk" and result.code == _OUT_OF_GAS
        # A node without an index of transactions does not tell why one is missing.
        more_gas = out_of_gas or (result is None and self.number >= 1)
        blamed = shared and ((result is not None and not out_of_gas) or self.number >= _TOGETHER)
        failed = f"code {result.code} ({result.codespace}): {result.log[:200]}" if result is not None else self.failed
        return Attempts(self.number + 1, self.gas_steps + more_gas, failed, self.alone or blamed)

    @property
    def gas_factor(self) -> float:
        """What the simulated gas is multiplied with."""
        return float(_GAS_STEP ** min(self.gas_steps, _MOST_GAS_STEPS))


def resend(last: Submission | None, height: int, block_nanoseconds: int, result: TransactionResult | None) -> Resend:
    """Decide on a message that the chain does not show at `height`. result: of its transaction, None: not included."""
    if last is None or (result is not None and result.code):
        return Resend.NEW_BYTES
    if last.timeout_ns and block_nanoseconds > last.timeout_ns:
        return Resend.NEW_BYTES
    if not last.accepted:
        return Resend.SAME_BYTES
    blocks = height - last.height
    if blocks < 1:
        return Resend.WAIT
    # Nodes that have the bytes may have got them after the latest block that was known: one more block may take them.
    given_up = height > last.known_at if last.known_at else blocks >= _BLOCKS_FOR_INCLUSION
    return Resend.NEW_BYTES if given_up else Resend.SAME_BYTES


def divide(
    rows: Iterable[tuple[T, Submission | None, Attempts]],
    results: Mapping[str, TransactionResult],
    height: int,
    block_nanoseconds: int,
    *,
    shared: bool,
) -> tuple[list[T], list[tuple[T, Attempts]]]:
    """Divide messages that the chain does not show: those whose bytes go out again, and those that are signed anew.

    results: of included transactions, by hash. shared: whether a transaction may hold several of the messages. With
    those that are signed anew come the attempts they have had once they are.
    """
    same: list[T] = []
    anew: list[tuple[T, Attempts]] = []
    for row, last, attempts in rows:
        result = results.get(last.tx_hash) if last is not None else None
        step = resend(last, height, block_nanoseconds, result)
        if step is Resend.SAME_BYTES:
            same.append(row)
        elif step is Resend.NEW_BYTES:
            anew.append((row, attempts if last is None else attempts.next(result, shared=shared)))
    return same, anew


def highest_gas_factor(attempts: Sequence[Attempts]) -> float:
    """Return the gas factor of a transaction that holds several messages."""
    return max((row.gas_factor for row in attempts), default=1.0)
