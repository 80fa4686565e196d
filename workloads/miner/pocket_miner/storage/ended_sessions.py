"""Delete what a volume holds of ended sessions."""

from typing import Final

from pocket_miner.storage.audit import Audit
from pocket_miner.storage.relay_store import RelayStore

_SETTLED_BLOCKS: Final = 10_000
"""Blocks after its end by which every session has settled, whatever its windows are."""


def remove_ended(relay_store: RelayStore, audit: Audit, end: int, supplier: str, session_id: str) -> None:
    """Delete relays, seal and costs of a session whose outcome is in another trail."""
    audit.forget(supplier, [session_id])
    relay_store.remove(end, supplier, session_id)  # last: as long as the relays are there, this is tried again


def without_relays(relay_store: RelayStore, audit: Audit) -> dict[str, dict[str, int | None]]:
    """Return sessions with a seal or costs, but without relays or an outcome.

    Supplier → session id → session end.
    """
    held = {(row.supplier, row.session_id) for _, row in relay_store.sessions()}
    ended: dict[str, dict[str, int | None]] = {}
    for supplier, session_id, end in audit.unfinished():
        if (supplier, session_id) not in held:
            ended.setdefault(supplier, {})[session_id] = end
    return ended


def settled_long_ago(end: int | None, height: int) -> bool:
    """Return True if a session with this end settled long before a height.

    Then its tombstone is deleted.
    """
    return end is not None and end + _SETTLED_BLOCKS < height
