"""Compute the details recorded with an outcome, and count it in the metrics."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pocket.api.status import OTHERS, timestamp
from pocket.chain.model import Block
from pocket.protocol.claims.amounts import Price, claimed_upokt
from pocket.protocol.claims.proof_requirement import ProofRequirement
from pocket.protocol.smst.digest import DIGEST_BYTES, Root
from pocket_miner import miner_metrics
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.storage.outcomes import SessionOutcome


def _unsealed(session: TrackedSession, leaves: int) -> Root | None:
    """Return a root with sum and count of the leaves but a zero hash.

    The result is None without leaves.
    """
    if session.terms is None or not leaves:
        return None
    units = leaves * session.terms.compute_units_per_relay
    return Root((units << 64 | leaves).to_bytes(DIGEST_BYTES, "big"))


def details_of(session: TrackedSession, leaves: int, payments: Sequence[tuple[str, str]]) -> dict[str, object]:
    """Return what is known of a session's root, relays, amounts and transactions.

    That is root, relays, compute units, claimed upokt and transactions.

    `leaves` is the number on the volume, for a session that was never sealed. `payments` are pairs of "claim" or
    "proof" and a transaction hash.
    """
    details: dict[str, object] = {}
    sealed = session.seal.root if session.seal is not None else session.claimed_root
    root = Root(sealed) if sealed else _unsealed(session, leaves)
    if root is not None:
        details |= {"relays": root.count, "compute_units": root.total}
        if session.terms is not None and session.params is not None:
            details["claimed_upokt"] = claimed_upokt(root, session.terms.target_hash, Price.of(session.params))
    if sealed:
        details["root"] = sealed.hex()
    if session.seal is not None:
        details["sealed_height"] = session.seal.height
    if session.requirement is not None:
        details["proof_required"] = session.requirement is not ProofRequirement.NOT_REQUIRED
    for message in ("claim", "proof"):
        if hashes := [tx_hash for paid_for, tx_hash in payments if paid_for == message]:
            details[f"{message}_transactions"] = hashes
    return details


def heights_of(session: TrackedSession, block: Block) -> dict[str, object]:
    """Return a session's heights, and the time of the block that concludes it.

    The heights are start, end and windows.
    """
    header, windows = session.header, session.windows
    heights: dict[str, object] = {
        "session_start_height": header.session_start_block_height,
        "session_end_height": header.session_end_block_height,
        "time": timestamp(datetime.fromtimestamp(block.time.seconds, UTC)),
    }
    if windows is not None:
        names = ("grace_end", "claim_open", "claim_close", "proof_open", "proof_close")
        heights["windows"] = {name: getattr(windows, name) for name in names}
    return heights


def count_outcome(outcome: Mapping[str, Any], recipients: Collection[str]) -> None:
    """Count a recorded outcome in the metrics.

    Addresses other than `recipients` share one series, which bounds their number.
    """
    details, name = outcome["details"], outcome["outcome"]
    labels = (outcome["supplier"], details["service_id"])
    claimed, settled = _number(details.get("claimed_upokt")), _number(details.get("settled_upokt"))
    miner_metrics.OUTCOMES.labels(name).inc()
    miner_metrics.CLAIMED.labels(*labels).inc(claimed)
    miner_metrics.SETTLED.labels(*labels).inc(settled)
    for address, upokt in (details.get("earned_by") or {}).items():
        miner_metrics.EARNED.labels(*labels, address if address in recipients else OTHERS).inc(_number(upokt))
    if name != SessionOutcome.UNSEEN:
        miner_metrics.LOST.labels(name).inc(max(0.0, claimed - settled))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
