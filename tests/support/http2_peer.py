"""An HTTP/2 server without sockets, and a client that ignores its limits."""

import asyncio
import contextlib

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, RemoteSettingsChanged, ResponseReceived, StreamReset
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

from pocket.api.relayminer import ConnectionLimits
from pocket_relayer.limits.memory_budget import MemoryBudget
from pocket_relayer.limits.rejection import Rejected
from pocket_relayer.transports.client_connections import Connections
from pocket_relayer.transports.http2 import Http2Server
from pocket_relayer.transports.replies import OutgoingResponse

HEAD = [(":method", "POST"), (":scheme", "http"), (":authority", "relayer")]
LIMIT = 40_000_000


class Router:
    """Serves relays, and refuses what has a Content-Type without reading it."""

    def serves_relays(self):
        return False

    async def answer(self, request):
        if "content-type" in request.headers:
            return OutgoingResponse(400, {})
        try:
            body = await request.read()
        except Rejected as rejected:
            return OutgoingResponse(rejected.status, {})
        assert body == b"relay"
        request.on_served()
        return OutgoingResponse(200, {})


class Transport(asyncio.Transport):
    """The server's end of a connection, whose output its client reads at once."""

    def __init__(self, client, address):
        super().__init__({"peername": (address, 1)})
        self._client, self.closed = client, False

    def write(self, data):
        self._client.read(bytes(data))

    def is_closing(self):
        return self.closed

    def abort(self):
        self.closed = True

    def get_write_buffer_size(self):
        return 0

    close = abort

    def pause_reading(self):
        """Read on: input waits within the connection."""

    resume_reading = write_eof = pause_reading

    def set_protocol(self, protocol):
        """Keep no other protocol: what it would read is discarded."""


class Client:
    """A client that ignores the server's limits."""

    def __init__(self, relayer, address="192.0.2.1"):
        self.h2, self.events = H2Connection(H2Configuration(header_encoding="utf-8")), []
        self.transport = Transport(self, address)
        self.protocol = relayer.server(relayer.connections.admit(self.transport))
        self.h2.initiate_connection()
        self.protocol.connection_made(self.transport)
        self.send()

    def read(self, data):
        with contextlib.suppress(ProtocolError):  # of frames that are no client's
            self.events += self.h2.receive_data(data)

    def send(self):
        self.protocol.data_received(self.h2.data_to_send())

    def open(self, number=1, body=b"", *, end=False, headers=(), path="/"):
        self.h2.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 1000
        self.h2.remote_settings.acknowledge()
        for _ in range(number):
            stream = self.h2.get_next_available_stream_id()
            self.h2.send_headers(stream, [*HEAD, (":path", path), *headers], end_stream=end and not body)
            if body:
                self.h2.send_data(stream, body, end_stream=end)
        self.send()

    def ended(self):
        return [one.error_code for one in self.events if isinstance(one, ConnectionTerminated)]

    def statuses(self):
        return [dict(one.headers)[":status"] for one in self.events if isinstance(one, ResponseReceived)]

    def resets(self):
        return [one.error_code for one in self.events if isinstance(one, StreamReset)]

    def allowed_streams(self):
        changes = [one.changed_settings for one in self.events if isinstance(one, RemoteSettingsChanged)]
        code = SettingCodes.MAX_CONCURRENT_STREAMS
        return [change[code].new_value for change in changes if code in change]


class Http2Relayer:
    """An HTTP/2 server and its limits."""

    def __init__(self, timeouts):
        self.now = 0.0
        self.memory = MemoryBudget(lambda: self.now, LIMIT)
        self.connections = Connections(ConnectionLimits(), self.memory)
        self.server = Http2Server(Router(), lambda: 1_000_000, timeouts)


async def iterations(number=3000):
    """Let the server handle what was sent. It takes the more iterations the longer a slow machine parses a portion."""
    for _ in range(number):
        await asyncio.sleep(0)
