"""Budgets for HTTP/2 frames, counted by their heads before h2 parses them.

A frame of 17 bytes costs h2 as much time as 16 KiB of a body, so frames that carry nothing have a rate (CVE-2019-9511
to 9518: PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty frames. CVE-2023-44487: streams that are opened and reset).
"""

from typing import Final

from pocket_relayer.limits.token_bucket import TokenBucket

_PREFACE_BYTES: Final = 24
_HEAD_BYTES: Final = 9
_DATA, _HEADERS, _RST_STREAM, _SETTINGS = 0, 1, 3, 4
_SETTING_BYTES: Final = 6  # each setting of a frame costs h2 about as much as a frame
_END_STREAM: Final = 0x01
_PADDED: Final = 0x08
_WORTH: Final = 1024  # bytes of a DATA frame below which a part of it counts as a cheap frame
RESETS_PER_SECOND, RESETS_AT_ONCE = 100.0, 500.0
STREAMS_PER_SECOND, STREAMS_AT_ONCE = 4000.0, 2000.0
CHEAP_PER_SECOND, CHEAP_AT_ONCE = 500.0, 1000.0
HEADER_BYTES_PER_SECOND, HEADER_BYTES_AT_ONCE = 1024.0 * 1024, 2.0 * 1024 * 1024
FIELDS_PER_SECOND, FIELDS_AT_ONCE = 40_000.0, 40_000.0
STRANGERS_STREAMS_PER_SECOND, STRANGERS_STREAMS_AT_ONCE = 400.0, 400.0
STRANGERS_FIELDS_PER_SECOND, STRANGERS_FIELDS_AT_ONCE = 5_000.0, 10_000.0


class FrameBudget:
    """Frame budgets of one connection, fed with any pieces of the stream.

    Budgets for streams and header fields are smaller until `trust` is called.
    """

    def __init__(self) -> None:
        self._skip = _PREFACE_BYTES
        self._head = b""
        self._trusted = False
        self._content_frames = 0
        self._now = 0.0
        self._cheap = TokenBucket(CHEAP_PER_SECOND, CHEAP_AT_ONCE)
        self._streams = TokenBucket(STRANGERS_STREAMS_PER_SECOND, STRANGERS_STREAMS_AT_ONCE)
        self._fields = TokenBucket(STRANGERS_FIELDS_PER_SECOND, STRANGERS_FIELDS_AT_ONCE)
        self._header_bytes = TokenBucket(HEADER_BYTES_PER_SECOND, HEADER_BYTES_AT_ONCE)
        self._resets = TokenBucket(RESETS_PER_SECOND, RESETS_AT_ONCE)

    def trust(self) -> None:
        """Allow what a connection needs that carries relays."""
        if not self._trusted:
            self._trusted = True
            self._streams = TokenBucket(STREAMS_PER_SECOND, STREAMS_AT_ONCE)
            self._fields = TokenBucket(FIELDS_PER_SECOND, FIELDS_AT_ONCE)

    def take(self, data: bytes, now: float) -> bool:
        """Count the frames in these bytes and return True if all are within budget.

        `now` is in seconds.
        """
        self._now = now
        if self._head:
            data, self._head = self._head + data, b""
        at, end = self._skip, len(data)
        streams = resets = header_bytes = 0
        cheap = 0.0
        while at + _HEAD_BYTES <= end:
            length = int.from_bytes(data[at : at + 3], "big")
            kind = data[at + 3]
            if kind == _DATA:
                flags = data[at + 4]
                self._content_frames += 1
                if flags & _PADDED:
                    cheap += 1
                elif length < _WORTH and not flags & _END_STREAM:
                    cheap += 1 - length / _WORTH
            elif kind == _HEADERS:
                streams += 1
                header_bytes += length
            elif kind == _RST_STREAM:
                resets += 1
            else:
                cheap += 1 + (length // _SETTING_BYTES if kind == _SETTINGS else 0)
                header_bytes += length
            at += _HEAD_BYTES + length
        if at < end:
            self._head, self._skip = data[at:], 0
        else:
            self._skip = at - end
        return (
            (not cheap or self._cheap.take(cheap, now))
            and (not streams or self._streams.take(streams, now))
            and (not header_bytes or self._header_bytes.take(header_bytes, now))
            and (not resets or self._resets.take(resets, now))
        )

    def take_fields(self, fields: float) -> bool:
        """Count decoded header fields. Returns True if they are in budget.

        They are those of the latest frames.
        """
        return self._fields.take(fields, self._now)

    def take_content(self, handled: int, now: float) -> bool:
        """Count DATA frames of closed streams. Returns True if they are in budget.

        `handled` are those of open streams since the last call. The latest frame may be incomplete.
        """
        self._content_frames -= handled
        discarded = self._content_frames - 1
        if discarded <= 0:
            return True
        self._content_frames = 1
        return self._cheap.take(discarded, now)

    def take_cheap(self, frames: int, now: float) -> bool:
        """Count what costs as much as empty frames. Returns True if it is in budget."""
        return not frames or self._cheap.take(frames, now)

    def allows_rejection(self, cost: float, now: float) -> bool:
        """Count a rejected stream as `cost` resets. Return True if it is in budget."""
        return self._resets.take(cost, now)

    def on_sent(self, size: int, *, last: bool) -> None:
        """Allow for the window update and the ping that a DATA frame of ours causes.

        A client that opens its windows by a few bytes gets nothing for the small frames that it causes.
        """
        if last or size >= _WORTH:
            self._cheap.add(2)
