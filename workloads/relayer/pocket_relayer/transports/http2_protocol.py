"""The h2 library with limits of our own."""

from typing import Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes, Settings
from hpack import Decoder

HEADER_LIST_READ: Final = 1024 * 1024
"""Bytes of a request's headers beyond which the connection ends."""
_SETTINGS: Final = frozenset(SettingCodes)


class _Decoder(Decoder):
    """Decoder of longer header lists than announced.

    A list that is too long ends its stream, not the connection.
    """

    @property
    def max_header_list_size(self) -> int:
        """Return the limit that hpack enforces."""
        return HEADER_LIST_READ

    @max_header_list_size.setter
    def max_header_list_size(self, announced: int) -> None:
        """Ignore the limit that h2 announces to clients."""


class _KnownSettings(Settings):
    """Settings of a client without those that HTTP/2 does not define.

    h2 would keep each of 65536 numbers, and check all of them at every further frame.
    """

    def __setitem__(self, code: SettingCodes | int, value: int) -> None:
        """Keep a defined setting."""
        if code in _SETTINGS:
            super().__setitem__(code, value)


class ServerProtocol(H2Connection):
    """h2 without its limit of open streams.

    A stream beyond our own limit is rejected, and the connection goes on.
    """

    def __init__(self) -> None:
        super().__init__(H2Configuration(client_side=False, header_encoding="utf-8"))
        table = self.decoder.max_allowed_table_size
        self.remote_settings = _KnownSettings(client=True)
        self.decoder = _Decoder()
        self.decoder.max_allowed_table_size = table

    @property
    def open_inbound_streams(self) -> int:
        """Return no open streams to h2's check, and let h2 forget closed ones."""
        return min(super().open_inbound_streams, 0)
