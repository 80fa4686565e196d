"""Parse end-block events of a `block_results` response while it arrives.

Source: docs/protocol/messages.md, section 11.

A settlement block of a busy chain has tens of thousands of events: as one JSON document they take hundreds of
megabytes and block the event loop while they are parsed. Read piece by piece, only the selected ones are stored.
"""

import codecs
import json
import re
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Final

from pocket.chain import convert
from pocket.chain.model import Event
from pocket.errors import DecodingError

EventFilter = Callable[[Event], bool]
LARGEST_EVENT: Final = 1024 * 1024
# Cannot be inside a string: its quotes would be escaped there.
_START: Final = re.compile(r'"finalize_block_events"\s*:\s*(\[|null)')
_START_LENGTH: Final = 200  # of what may be the first part of it
_BETWEEN: Final = re.compile(r"[\s,]*")
_UNREADABLE: Final = "the node's block results cannot be read"


class _Position(Enum):
    BEFORE = auto()
    INSIDE = auto()
    AFTER = auto()


class EndBlockEventParser:
    """Incremental parser that keeps only the selected events."""

    def __init__(self, wanted: EventFilter) -> None:
        self._wanted = wanted
        self._characters = codecs.getincrementaldecoder("utf-8")()
        self._decoder = json.JSONDecoder()
        self._position = _Position.BEFORE
        self._text = ""  # what is not decoded yet
        self._found: list[Event] = []

    def feed(self, piece: bytes) -> None:
        """Take the next bytes. Raises DecodingError."""
        if self._position is _Position.AFTER:
            return
        try:
            self._text += self._characters.decode(piece)
        except UnicodeDecodeError as error:
            raise DecodingError(_UNREADABLE) from error
        if self._position is _Position.BEFORE:
            self._find_start()
        if self._position is _Position.INSIDE:
            self._text = self._text[self._take() :]
            if len(self._text) > LARGEST_EVENT:
                raise DecodingError(_UNREADABLE)

    def close(self) -> tuple[Event, ...]:
        """Return the selected events in block order.

        Raises DecodingError for a cut response.
        """
        if self._position is not _Position.AFTER:
            raise DecodingError("the node's block results end too early")
        return tuple(self._found)

    def _find_start(self) -> None:
        start = _START.search(self._text)
        if start is None:
            self._text = self._text[-_START_LENGTH:]
        elif start[1] == "null":
            self._position = _Position.AFTER
        else:
            self._position, self._text = _Position.INSIDE, self._text[start.end() :]

    def _take(self) -> int:
        """Decode the complete events. Returns the position of the first incomplete one."""
        rows: list[Any] = []
        at = 0
        while True:
            between = _BETWEEN.match(self._text, at)
            at = between.end() if between else at
            if self._text.startswith("]", at):
                self._position = _Position.AFTER
                break
            try:
                row, at = self._decoder.raw_decode(self._text, at)
            except ValueError:
                break  # there is more to come; what is no JSON grows too large
            except RecursionError as error:
                raise DecodingError(_UNREADABLE) from error
            rows.append(row)
        try:
            self._found += filter(self._wanted, convert.events(rows))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise DecodingError(_UNREADABLE) from error
        return at
