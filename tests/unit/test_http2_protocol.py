"""h2 with limits of our own."""

import struct

import pytest
from h2.exceptions import DenialOfServiceError
from h2.settings import SettingCodes

from pocket_relayer.transports.http2_protocol import FIELDS_READ, ServerProtocol

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


def headers(stream, fields):
    """Return a frame with a request of so many fields, each of one byte."""
    block = b"\x83\x84\x87" + b"\x41\x01x" + b"\x90" * (fields - 4)
    return len(block).to_bytes(3, "big") + b"\1\5" + stream.to_bytes(4, "big") + block


def test_decoding_a_request_ends_with_the_connection_at_too_many_fields():
    decoded = []
    protocol = ServerProtocol(lambda fields: decoded.append(fields) or True)
    protocol.initiate_connection()
    protocol.receive_data(PREFACE + settings())
    for stream in (1, 3):
        (event, *_) = protocol.receive_data(headers(stream, FIELDS_READ))
        assert len(event.headers) == FIELDS_READ
    with pytest.raises(DenialOfServiceError):
        protocol.receive_data(headers(5, FIELDS_READ + 1))
    assert len(decoded) == 2
