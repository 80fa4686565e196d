"""h2 with limits of our own."""

import struct

from h2.settings import SettingCodes

from pocket_relayer.transports.http2_protocol import ServerProtocol

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def settings(*pairs):
    payload = b"".join(struct.pack(">HI", code, value) for code, value in pairs)
    return len(payload).to_bytes(3, "big") + b"\4\0\0\0\0\0" + payload


def test_settings_that_http2_does_not_define_are_not_kept():
    protocol = ServerProtocol(lambda fields: True)
    protocol.initiate_connection()
    protocol.receive_data(PREFACE + settings())
    for first in range(100, 60_000, 2000):
        protocol.receive_data(settings(*((code, 1) for code in range(first, first + 2000))))
    protocol.receive_data(settings((SettingCodes.INITIAL_WINDOW_SIZE, 10), (60_000, 1)))
    assert protocol.remote_settings.initial_window_size == 10
    assert set(protocol.remote_settings) <= set(SettingCodes)
