"""Place sessions and their windows on a common axis of blocks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pocket.api.miner_status import OpenSession
from pocket_console.views.merged import Session

_TICKS: Final = 5
_NEAR: Final = 10
_LONGEST: Final = 2000
"""Blocks on one axis. Sessions that reach beyond it are cut off."""


@dataclass(frozen=True, slots=True)
class Band:
    """A range of blocks, from the start of the axis. `kind` names what happens in it."""

    kind: str
    x: int
    width: int
    title: str


@dataclass(frozen=True, slots=True)
class Axis:
    """The blocks that a page shows.

    `now` is the place of the latest block, None outside.
    """

    first: int
    last: int
    now: int | None
    ticks: tuple[int, ...]

    @property
    def span(self) -> int:
        """Return the number of blocks."""
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Track:
    """One session on the axis, with a description for those who do not see it."""

    bands: tuple[Band, ...]
    marks: tuple[Band, ...]
    text: str


def axis_of(sessions: Sequence[Session], height: int) -> Axis:
    """Return the axis on which sessions are shown."""
    starts = [session.start for session in sessions if session.start]
    ends = [last_block(session) for session in sessions]
    first = min(starts, default=max(1, height - 20))
    last = max([*ends, first + 1])
    first = max(first, last - _LONGEST + 1)
    step = (last - first) / (_TICKS - 1)
    now = height - first if first <= height <= last else None
    return Axis(first, last, now, tuple(round(first + step * index) for index in range(_TICKS)))


def last_block(session: Session) -> int:
    """Return the last known block of a session's life.

    The block of its end is returned, too, if that is near.
    """
    ended = 0 if isinstance(session, OpenSession) else session.height
    if session.windows is None:
        return session.end or ended
    close = session.windows.proof_close
    return max(close, min(ended, close + _NEAR))


def track_of(session: Session, axis: Axis) -> Track:
    """Return the session's bands and marks on an axis."""
    ranges: list[tuple[str, int, int]] = []
    if session.start and session.end:
        ranges.append(("session", session.start, session.end))
    windows = session.windows
    if windows is not None and session.end:
        ranges += [
            ("grace", session.end + 1, windows.grace_end),
            ("claim", windows.claim_open, windows.claim_close),
            ("proof", max(windows.proof_open, windows.claim_close + 1), windows.proof_close),
        ]
    bands = tuple(band for kind, first, last in ranges if (band := _band(axis, kind, first, last)) is not None)
    marks = tuple(band for kind, at in _moments(session) if (band := _band(axis, kind, at, at)) is not None)
    words = [band.title for band in (*bands, *marks)]
    return Track(bands, marks, ", ".join(words) or "its blocks are not known")


def _moments(session: Session) -> Iterable[tuple[str, int]]:
    """Yield what happened at which block."""
    if isinstance(session, OpenSession):
        for kind, at in (
            ("sealed", session.sealed_height), ("claimed", session.claimed_height), ("proven", session.proven_height),
        ):  # fmt: skip
            if at is not None:
                yield kind, at
    else:
        yield ("paid" if session.paid else "lost" if session.lost else "over"), session.height


_NAMES: Final = {"session": "session", "grace": "grace period", "claim": "claim window", "proof": "proof window"}


def _band(axis: Axis, kind: str, first: int, last: int) -> Band | None:
    begin, end = max(first, axis.first), min(last, axis.last)
    if end < begin:
        return None
    name = _NAMES.get(kind)
    title = f"{kind} at block {first}" if name is None else f"{name} of blocks {first} to {last}"
    return Band(kind, begin - axis.first, end - begin + 1, title)
