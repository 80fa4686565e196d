"""Classify rejected transactions by cause.

Source: docs/protocol/claims-and-proofs.md, section 6.

Message handlers fail with code 1 and codespace `undefined`. Only the text names the cause, so the text is matched.
"""

import enum
import re


class BroadcastFailure(enum.Enum):
    """Cause of a rejected transaction."""

    ACCEPTED_BEFORE = "the same bytes are already known"
    NOT_REQUIRED = "the proof is not required"
    TOO_EARLY = "the window is not open yet"
    TOO_LATE = "the window has closed"
    NO_FUNDS = "the operator cannot pay"
    NEW_TIMESTAMP = "the timeout timestamp cannot be used"
    ACCOUNT = "wrong account number, chain id or sequence"
    MORE_GAS = "the gas limit is too low"
    FEE_TOO_LOW = "the gas price is below the node's minimum"
    POISON = "one message can never succeed"
    TOO_LARGE = "nodes take no transaction so large"
    PROGRAMMING = "the transaction is malformed"
    MEMPOOL_FULL = "the node has no space for a transaction now"
    UNREACHABLE = "no node gave an answer"
    UNSIGNED = "the remote signer gave no signature"
    NOT_SIGNED = "the remote signer refused to sign"
    RETRY = "try again"


_POISON_TEXTS = (
    "mismatch: claim compute units",
    "invalid session ID",
    "session ID does not match",
    "supplier not found",
    "not staked for requested service",
    "could not find app",
    "claim not found",
    "no claim found",
    "invalid proof",
    "invalid relay",
    "supplier type mismatch",
    "invalid relay difficulty",
    "failed to validate relay difficulty",
    "not enough funds to submit proof",
    "invalid session end height",
    "invalid session start height",
    "invalid session header",
)
_FUNDS_TEXTS = ("insufficient funds", "insufficient account balance", "spendable balance")
_CODES = {
    2: BroadcastFailure.PROGRAMMING,
    4: BroadcastFailure.ACCOUNT,
    5: BroadcastFailure.NO_FUNDS,
    8: BroadcastFailure.PROGRAMMING,
    9: BroadcastFailure.PROGRAMMING,
    11: BroadcastFailure.MORE_GAS,
    12: BroadcastFailure.PROGRAMMING,
    13: BroadcastFailure.FEE_TOO_LOW,
    15: BroadcastFailure.PROGRAMMING,
    19: BroadcastFailure.ACCEPTED_BEFORE,
    20: BroadcastFailure.MEMPOOL_FULL,
    21: BroadcastFailure.TOO_LARGE,
    30: BroadcastFailure.NEW_TIMESTAMP,
    32: BroadcastFailure.ACCOUNT,
    41: BroadcastFailure.TOO_LARGE,  # more gas than a block takes
    42: BroadcastFailure.NEW_TIMESTAMP,
}


def classify(code: int, codespace: str, log: str) -> BroadcastFailure:
    """Return the cause of a rejection. Texts take precedence over codes.

    `code` must not be 0.
    """
    if "outside of the session's" in log:
        return BroadcastFailure.TOO_EARLY if "is less than" in log else BroadcastFailure.TOO_LATE
    if "is ahead of the last committed block" in log:
        return BroadcastFailure.TOO_EARLY
    if "proof not required" in log:
        return BroadcastFailure.NOT_REQUIRED
    if any(text in log for text in _FUNDS_TEXTS):
        return BroadcastFailure.NO_FUNDS
    if "ttl exceeds" in log or "failed to add unordered nonce" in log or "tx timeout" in log:
        return BroadcastFailure.NEW_TIMESTAMP
    if any(text in log for text in _POISON_TEXTS) or codespace == "proof":
        return BroadcastFailure.POISON
    if "out of gas" in log:
        return BroadcastFailure.MORE_GAS
    if "tx already exists in cache" in log:
        return BroadcastFailure.ACCEPTED_BEFORE
    if codespace == "sdk":
        return BroadcastFailure.PROGRAMMING if code == 18 else _CODES.get(code, BroadcastFailure.RETRY)
    return BroadcastFailure.RETRY


def failed_message_index(log: str) -> int | None:
    """Return the index of the failed message if the log names it."""
    match = re.search(r"message index: (\d+)", log)
    return int(match[1]) if match else None
