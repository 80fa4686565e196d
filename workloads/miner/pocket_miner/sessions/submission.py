"""Decide when a claim or proof is sent again, and with which bytes.

The functions are pure. A transaction that was sent is not included yet. Sending the same bytes again costs nothing. New
bytes may cost a second fee, so the chain is queried before they are sent.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, TypeVar

from pocket.chain.model import TransactionResult

T = TypeVar("T")
LAST_BLOCKS: Final = 2  # of a window: there is hardly a later block to wait for
_BLOCKS_FOR_INCLUSION: Final = 2
_GAS_STEP: Final = 2.5
_MAX_GAS_STEPS: Final = 3
_OUT_OF_GAS: Final = 11
_MAX_SHARED_ATTEMPTS: Final = 2  # attempts after which any of several messages in a transaction may be to blame


class Resend(Enum):
    """The way to send a claim or proof again that the chain does not show."""

    WAIT = "wait"
    SAME_BYTES = "same bytes"
    NEW_BYTES = "new bytes"


@dataclass(frozen=True, slots=True)
class Submission:
    """A transaction that was sent to nodes.

    `height` is the latest known height when it was sent. `accepted` is True if a node took it into its mempool. If not,
    no node answered, and one may have it all the same. `first_at` is the height at which a node first took it, and
    `known_at` the one at which nodes first reported that they already had the bytes, 0 if never. `timeout_ns` is the
    block time after which it cannot be included, 0 if unknown.
    """

    raw: bytes
    tx_hash: str
    height: int
    timeout_ns: int = 0
    accepted: bool = False
    known_at: int = 0
    first_at: int = 0

    def handed_over(self, height: int, node_height: int = 0, *, known_before: bool) -> "Submission":
        """Return the submission as accepted at a height.

        `node_height` is that of the node that answered. It may be ahead of the latest height known here, and a wrong
        one must not delay the next attempt. `known_before` means that the nodes already had the bytes.
        """
        height = max(height, min(node_height, height + 1))
        first = self.first_at or height
        if known_before:
            return replace(self, accepted=True, known_at=self.known_at or height, first_at=first)
        return replace(self, height=height, accepted=True, known_at=0, first_at=first)

    def is_kept_in_vain(self, height: int, blocks: int) -> bool:
        """Return True if nodes keep the bytes without including them.

        They have had them for at least so many blocks. Nodes that lost the bytes and took them again had them, too: one
        that takes transactions and passes none on does so at each block.
        """
        known = self.known_at and height > self.known_at and height - self.height >= blocks
        return bool(known) or (self.height > self.first_at > 0 and height - self.first_at > blocks)

    def expired(self) -> "Submission":
        """Return the submission as one that no later block can include.

        An earlier one may have.
        """
        return replace(self, accepted=True, timeout_ns=1)


@dataclass(frozen=True, slots=True)
class Attempts:
    """The number of times a message was signed again, and its last failure.

    `alone` means that it no longer shares a transaction with other messages.
    """

    number: int = 0
    gas_steps: int = 0
    failed: str = ""
    alone: bool = False

    def next(self, result: TransactionResult | None = None, *, shared: bool = False) -> "Attempts":
        """Return the attempts after the last transaction is given up.

        `result` is that of a transaction that was included and failed.
        """
        out_of_gas = result is not None and result.codespace == "sdk" and result.code == _OUT_OF_GAS
        # A node without a transaction index does not return why one is missing.
        more_gas = out_of_gas or (result is None and self.number >= 1)
        blamed = shared and ((result is not None and not out_of_gas) or self.number >= _MAX_SHARED_ATTEMPTS)
        failed = f"code {result.code} ({result.codespace}): {result.log[:200]}" if result is not None else self.failed
        return Attempts(self.number + 1, self.gas_steps + more_gas, failed, self.alone or blamed)

    def refused(self, *, more_gas: bool, shared: bool) -> "Attempts":
        """Return the attempts after nodes rejected the transaction.

        They name the cause, so that only a gas limit that was too low makes the next transaction dearer.
        """
        blamed = shared and self.number >= _MAX_SHARED_ATTEMPTS
        return replace(self, number=self.number + 1, gas_steps=self.gas_steps + more_gas, alone=self.alone or blamed)

    @property
    def gas_factor(self) -> float:
        """Return the factor by which simulated gas is multiplied."""
        return float(_GAS_STEP ** min(self.gas_steps, _MAX_GAS_STEPS))


@dataclass(slots=True)
class Delivery:
    """The last transaction of a claim or proof, and the attempts."""

    sent: Submission | None = None
    attempts: Attempts = field(default_factory=Attempts)


def resend(
    last: Submission | None, height: int, block_nanoseconds: int, result: TransactionResult | None, left: int = 0
) -> Resend:
    """Decide how to send a message again that the chain does not show at `height`.

    `result` is that of its transaction, None if it was not included. `left` are the blocks until the window closes:
    bytes that nodes know may still be included after empty blocks, so they are given up only once as many blocks have
    passed in vain as are left.
    """
    if last is None or (result is not None and result.code):
        return Resend.NEW_BYTES
    if last.timeout_ns and block_nanoseconds > last.timeout_ns:
        return Resend.NEW_BYTES
    if not last.accepted:
        return Resend.SAME_BYTES
    blocks = height - last.height
    if blocks < 1:
        return Resend.WAIT
    # Nodes may have received the bytes after the latest known block: the next block may include them.
    given_up = last.is_kept_in_vain(height, max(_BLOCKS_FOR_INCLUSION, left))
    return Resend.NEW_BYTES if given_up else Resend.SAME_BYTES


def is_last_chance(last: Submission | None, height: int, close: int) -> bool:
    """Return True if bytes that nodes only keep must be signed again at `height`.

    They do not include them. The window ends at `close` and leaves no later block to wait for. Bytes that only one
    block could have included may still be in the next one, so they are given up only if no other block follows.
    """
    if last is None or not last.known_at or close - height > LAST_BLOCKS:
        return False
    return close - height <= 1 or height - last.height >= _BLOCKS_FOR_INCLUSION


def at_last_chance(
    rows: Iterable[tuple[T, Submission | None, Attempts]], height: int, close: int, *, shared: bool
) -> list[tuple[T, Attempts]]:
    """Return the messages that must be signed again.

    Nodes keep their bytes without including them.
    """
    return [(row, attempts.next(shared=shared)) for row, last, attempts in rows if is_last_chance(last, height, close)]


def divide(
    rows: Iterable[tuple[T, Submission | None, Attempts]],
    results: Mapping[str, TransactionResult],
    height: int,
    block_nanoseconds: int,
    *,
    shared: bool,
    left: int = 0,
) -> tuple[list[T], list[tuple[T, Attempts]]]:
    """Divide messages that the chain does not show by the need to sign again.

    `results` are those of included transactions, by hash. `shared` means that a transaction may hold several of the
    messages, `left` are the blocks until the window closes. Returns the messages whose same bytes are sent again, and
    those to sign again with their attempts.
    """
    same: list[T] = []
    to_sign: list[tuple[T, Attempts]] = []
    for row, last, attempts in rows:
        result = results.get(last.tx_hash) if last is not None else None
        step = resend(last, height, block_nanoseconds, result, left)
        if step is Resend.SAME_BYTES:
            same.append(row)
        elif step is Resend.NEW_BYTES:
            failed = result if result is not None and result.code else None
            to_sign.append((row, attempts if last is None else attempts.next(failed, shared=shared)))
    return same, to_sign


def highest_gas_factor(attempts: Sequence[Attempts]) -> float:
    """Return the gas factor of a transaction that holds several messages."""
    return max((row.gas_factor for row in attempts), default=1.0)
