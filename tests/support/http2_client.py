"""An HTTP/2 client by hand, and frames that no library sends."""

import asyncio
import struct
from urllib.parse import urlsplit

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated

from hostile_clients import dial

DATA, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 8, 9
END_STREAM, END_HEADERS = 1, 4
POST = b"\x83\x86\x84\x01\x01x"
"""Header block of POST, http, / and the authority x."""


def raw_frame(kind, stream, payload, flags=0):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def raw_settings(codes, value=1):
    return raw_frame(SETTINGS, 0, b"".join(struct.pack(">HI", code, value) for code in codes))


class Http2Client:
    """An HTTP/2 client by hand."""

    def __init__(self, reader, writer, place):
        self.reader, self.writer, self.events = reader, writer, []
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.head = [(":method", "POST"), (":path", "/"), (":scheme", "http"), (":authority", place)]

    @classmethod
    async def dial(cls, relayer):
        return cls(*await dial(relayer), urlsplit(relayer.url).netloc)

    def send(self):
        self.writer.write(self.h2.data_to_send())

    async def read(self, wanted):
        """Read events until one is wanted.

        Raises EOFError at the end of the connection.
        """
        async with asyncio.timeout(10):
            while True:
                for event in self.events:
                    if wanted(event):
                        return event
                self.events = []
                data = await self.reader.read(65536)
                if not data:
                    raise EOFError
                self.events = self.h2.receive_data(data)
                self.send()

    def begin(self, *, headers=(), end=False):
        number = self.h2.get_next_available_stream_id()
        self.h2.send_headers(number, [*self.head, *headers], end_stream=end)
        self.send()
        return number


def is_ended(event):
    return isinstance(event, ConnectionTerminated)
