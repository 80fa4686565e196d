"""Tell how long no decision about a supplier's sessions can change anything."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pocket_miner.sessions.stages import Stage
from pocket_miner.sessions.tracked_session import TrackedSession


@dataclass(frozen=True, slots=True)
class QuietSessions:
    """Sessions of a supplier of which none is decided before the height `until`.

    They are all of its sessions.
    """

    session_ids: frozenset[str]
    until: int


def quiet_sessions(
    sessions: Collection[TrackedSession], stages: Mapping[str, str], cutoff_changes_at: int
) -> QuietSessions | None:
    """Return the sessions if each is active, has its terms and this stage, or None.

    Each was decided with this stage. At its end height a session is compared with the seals in Redis for the first
    time.
    """
    quiet = all(
        stages.get(session.session_id) == Stage.ACTIVE and session.terms is not None and session.seal is None
        for session in sessions
    )
    if not quiet:
        return None
    until = min((session.end for session in sessions), default=cutoff_changes_at)
    return QuietSessions(frozenset(session.session_id for session in sessions), min(until, cutoff_changes_at))
