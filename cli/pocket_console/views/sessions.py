"""Show sessions in pages, filtered, with their windows on a time line."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pocket.api.miner_status import EndedSession, OpenSession
from pocket_console.views.merged import Merged, Session
from pocket_console.views.paging import Page, page_of
from pocket_console.views.timeline import Axis, Track, axis_of, track_of

_MOST_CHOICES: Final = 500


class Show(StrEnum):
    """Which sessions are shown."""

    ALL = "all"
    OPEN = "open"
    DUE = "due"
    ENDED = "ended"
    LOST = "lost"


class Tone(StrEnum):
    """The colour of a state."""

    GOOD = "good"
    BUSY = "busy"
    QUIET = "quiet"
    WARN = "warn"
    BAD = "bad"


_STAGES: Final[Mapping[str, tuple[str, Tone]]] = {
    "": ("starting", Tone.QUIET),
    "ACTIVE": ("active", Tone.BUSY),
    "GRACE": ("grace", Tone.BUSY),
    "CLAIMABLE": ("to claim", Tone.BUSY),
    "SEALED": ("sealed", Tone.BUSY),
    "CLAIMED": ("claimed", Tone.BUSY),
    "PROOFABLE": ("to prove", Tone.BUSY),
    "PROVEN": ("proven", Tone.GOOD),
    "PROOF_NOT_REQUIRED": ("no proof due", Tone.GOOD),
    "SETTLED": ("settling", Tone.GOOD),
}


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """What is shown. Texts select what contains them, `page` counts from 1."""

    show: Show = Show.ALL
    service: str = ""
    supplier: str = ""
    session: str = ""
    page: int = 1

    def selects(self, session: Session) -> bool:
        """Return True if a session is shown."""
        return (
            self.service in ("", session.service_id)
            and (not self.supplier or self.supplier in session.supplier or self.supplier in session.application)
            and session.session_id.startswith(self.session)
        )


@dataclass(frozen=True, slots=True)
class SessionRow:
    """One session in the table.

    `value_upokt` is what an open session is worth, what an ended one earned, and what a lost one did not earn.
    """

    supplier: str
    session_id: str
    service: str
    application: str
    stage: str
    tone: Tone
    relays: int
    value_upokt: int | None
    lost: bool
    margin: str
    end: int | None
    problem: str
    stale: bool
    open: bool
    track: Track


@dataclass(frozen=True, slots=True)
class SessionsView:
    """A page of sessions."""

    height: int
    axis: Axis
    rows: tuple[SessionRow, ...]
    paging: Page[Session]
    counts: Mapping[Show, int]
    services: tuple[str, ...]
    wanted: SessionFilter


def sessions_view(picture: Merged, wanted: SessionFilter) -> SessionsView:
    """Return one page of the selected sessions, the most urgent first."""
    opened = [row for row in picture.open if wanted.selects(row)]
    ended = [row for row in picture.ended if wanted.selects(row)]
    due = [row for row in opened if row.closing or row.problem]
    lost = [row for row in ended if row.lost]
    selected: dict[Show, list[Session]] = {
        Show.ALL: [*opened, *ended], Show.OPEN: [*opened], Show.DUE: [*due], Show.ENDED: [*ended], Show.LOST: [*lost],
    }  # fmt: skip
    paging = page_of(selected[wanted.show], wanted.page)
    axis = axis_of(paging.rows, picture.height)
    services = sorted({row.service_id for row in picture.open} | {row.service_id for row in picture.ended})
    return SessionsView(
        height=picture.height,
        axis=axis,
        rows=tuple(row_of(session, picture, axis) for session in paging.rows),
        paging=paging,
        counts={show: len(rows_shown) for show, rows_shown in selected.items()},
        services=tuple(services[:_MOST_CHOICES]),
        wanted=wanted,
    )


def row_of(session: Session, picture: Merged, axis: Axis) -> SessionRow:
    """Return a session as a row."""
    stage, tone = stage_of(session)
    opened = isinstance(session, OpenSession)
    return SessionRow(
        supplier=session.supplier,
        session_id=session.session_id,
        service=session.service_id,
        application=session.application,
        stage=stage,
        tone=tone,
        relays=session.relays,
        value_upokt=_value(session),
        lost=isinstance(session, EndedSession) and session.lost,
        margin=margin_of(session, picture.height),
        end=session.end,
        problem=_problem(session),
        stale=isinstance(session, OpenSession) and picture.is_stale(session),
        open=opened,
        track=track_of(session, axis),
    )


def _value(session: Session) -> int | None:
    if isinstance(session, OpenSession):
        return session.value_upokt
    return session.claimed_upokt - session.settled_upokt if session.lost else session.earned_upokt


def _problem(session: Session) -> str:
    if isinstance(session, EndedSession):
        return "" if session.paid else session.reason
    return session.problem or (f"not claimed: {session.skipped}" if session.skipped else "")


def stage_of(session: Session) -> tuple[str, Tone]:
    """Return the stage or outcome in words, and how it is coloured."""
    if isinstance(session, EndedSession):
        tone = Tone.GOOD if session.paid else Tone.BAD if session.lost else Tone.QUIET
        return session.outcome.replace("_", " "), tone
    name, tone = _STAGES.get(session.stage, (session.stage.lower().replace("_", " "), Tone.QUIET))
    if session.problem:
        return name, Tone.BAD
    return (name, Tone.WARN) if session.closing else (name, tone)


def margin_of(session: Session, height: int) -> str:
    """Return the blocks that are left for what a session owes.

    Once it is on chain, they are those that were left then.
    """
    if isinstance(session, EndedSession):
        return f"ended at {session.height:,}"
    if session.due is not None:
        left = session.due - height
        if left < 0:
            return f"{session.owes} was due {-left} blocks ago"
        return f"{session.owes} in {left} blocks" if left != 1 else f"{session.owes} in 1 block"
    windows = session.windows
    if windows is not None and session.proven_height is not None:
        return f"proven {windows.proof_close - session.proven_height} before the close"
    if windows is not None and session.claimed_height is not None:
        return f"claimed {windows.claim_close - session.claimed_height} before the close"
    return ""


@dataclass(frozen=True, slots=True)
class SessionDetail:
    """One session with its time line."""

    row: SessionRow
    axis: Axis
    session: Session
    miner: str


def find_session(picture: Merged, supplier: str, session_id: str) -> Session | None:
    """Return a session, None if no miner reports it."""
    rows: tuple[Session, ...] = (*picture.open, *picture.ended)
    return next((row for row in rows if row.session_id == session_id and row.supplier == supplier), None)


def session_detail(picture: Merged, session: Session) -> SessionDetail:
    """Return the page of one session."""
    axis = axis_of([session], picture.height)
    miner = picture.reported_by.get((session.supplier, session.session_id), "")
    return SessionDetail(row_of(session, picture, axis), axis, session, miner)
