"""The h2 library with limits of our own."""

import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import DenialOfServiceError, H2Error
from h2.frame_buffer import FrameBuffer
from h2.settings import SettingCodes, Settings
from hpack import Decoder, HeaderTuple

HEADER_LIST: Final = 64 * 1024
"""Bytes of the headers of a request beyond which its stream ends, as announced to clients."""
HEADER_LIST_READ: Final = 256 * 1024
"""Bytes of a request's headers beyond which the connection ends."""
FIELDS_READ: Final = 512
"""Header fields of a request beyond which the connection ends. Nothing else runs while they are decoded."""
_BYTES_OF_A_FIELD: Final = 25
"""Encoded bytes that take as long to decode as one field: about 5 microseconds in all."""
_LARGEST_TABLE: Final = 4096
"""Bytes of the table that our own headers fill, whatever a client allows. Each lookup reads all of it."""
_SETTINGS: Final = frozenset(SettingCodes)
_WINDOW: Final = 1024 * 1024
"""Bytes of a stream that a client may send before they are acknowledged."""


class _Decoder(Decoder):
    """Decoder of longer header lists than announced.

    A list that is too long ends its stream, not the connection. `take` counts fields and returns False for a client
    that sends too many: a field of one byte takes as long to decode and check as 16 KiB of a body.
    """

    def __init__(self, take: Callable[[float], bool]) -> None:
        self._take = take
        self._fields = 0
        super().__init__()

    def decode(self, data: bytes, raw: bool = False) -> Iterable[HeaderTuple]:
        """Return the fields of a header block.

        Raises DenialOfServiceError, which ends the connection, if there are too many within its budget.
        """
        self._fields = 0
        fields = list(super().decode(data, raw))
        if not self._take(len(fields) + len(data) / _BYTES_OF_A_FIELD):
            raise DenialOfServiceError("too many header fields")
        return fields

    @property
    def max_header_list_size(self) -> int:
        """Return the limit of bytes, which hpack reads after each field.

        None are left after too many fields.
        """
        self._fields += 1
        return HEADER_LIST_READ if self._fields <= FIELDS_READ else 0

    @max_header_list_size.setter
    def max_header_list_size(self, announced: int) -> None:
        """Ignore the limit that h2 announces to clients."""


class _KnownSettings(Settings):
    """Settings of a client without those that HTTP/2 does not define.

    h2 would keep each of 65536 numbers, and check all of them at every further frame.
    """

    def __setitem__(self, code: SettingCodes | int, value: int) -> None:
        """Keep a defined setting."""
        if code == SettingCodes.HEADER_TABLE_SIZE:
            value = min(value, _LARGEST_TABLE)
        if code in _SETTINGS:
            super().__setitem__(code, value)


class ServerProtocol(H2Connection):
    """h2 without its limit of open streams.

    A stream beyond our own limit is rejected, and the connection goes on. `take_fields` counts decoded header fields.
    """

    MAX_CLOSED_STREAMS = 1024
    """Closed streams that are remembered. h2 remembers 65536."""

    def __init__(self, take_fields: Callable[[float], bool]) -> None:
        super().__init__(H2Configuration(client_side=False, header_encoding=None))
        table = self.decoder.max_allowed_table_size
        self.remote_settings = _KnownSettings(client=True)
        self.decoder = _Decoder(take_fields)
        self.decoder.max_allowed_table_size = table

    def open(self, streams: int) -> None:
        """Start the connection with our settings: at most `streams` open streams."""
        self.initiate_connection()
        # After initiate_connection: h2 treats earlier changes as acknowledged without sending them.
        self.update_settings(
            {
                SettingCodes.MAX_CONCURRENT_STREAMS: streams,
                SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW,
                SettingCodes.MAX_HEADER_LIST_SIZE: HEADER_LIST,
            }
        )
        self.increment_flow_control_window(4 * _WINDOW)

    def reset_if_open(self, stream: int, code: ErrorCodes) -> None:
        """Reset a stream, unless it or the connection has ended."""
        with suppress(H2Error):
            self.reset_stream(stream, code)

    @property
    def open_inbound_streams(self) -> int:
        """Return no open streams to h2's check, and let h2 forget closed ones."""
        return min(super().open_inbound_streams, 0)

    @property
    def unparsed_bytes(self) -> int:
        """Return the bytes of frames and header blocks whose end has not arrived."""
        buffer = self.incoming_buffer
        waiting = len(buffer._data)  # noqa: SLF001 - h2 does not tell them
        if buffer._headers_buffer:  # noqa: SLF001
            waiting += sum(len(frame.data) for frame in buffer._headers_buffer)  # noqa: SLF001
        return waiting

    def release(self) -> None:
        """Let go what was received, once the connection has ended.

        h2 refers to itself, so it would stay until the next full garbage collection.
        """
        self.incoming_buffer = FrameBuffer()
        self._frame_dispatch_table.clear()
        self.streams.clear()


def go_away_frame(last_stream: int) -> bytes:
    """Return a GOAWAY frame without error (RFC 9113, section 6.8).

    h2 would serve no stream any more once it sent one.
    """
    return struct.pack(">HBBBIII", 0, 8, 7, 0, 0, last_stream, 0)
