"""Memory of an HTTP/2 connection itself, in addition to its streams."""

from typing import Final

from pocket_relayer.limits.rejection import Rejected
from pocket_relayer.transports.client_connections import Connection

CONNECTION_BYTES: Final = 24 * 1024
"""h2's state, and the tables of header fields of both sides."""


_FRAME_BYTES: Final = 16 * 1024 + 9
"""The largest frame that h2 reads, with its head."""


class Http2Memory:
    """Counts a connection and its frames and header blocks that have not ended.

    They make room for others except while frames are handled: what those need may evict others of the connection.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._state = connection.memory.reserve()
        self._unparsed = connection.memory.reserve()
        self._handling = False

    def open(self) -> bool:
        """Count the connection.

        Without room for it the connection ends, and False is returned.
        """
        try:
            self._state.acquire(CONNECTION_BYTES)
        except Rejected:
            self._connection.abort()
            return False
        self.release(idle=True)
        return True

    @property
    def handling(self) -> bool:
        """Return True while frames are handled."""
        return self._handling

    def hold(self) -> None:
        """Keep the connection while frames are handled."""
        self._handling = True
        self._unparsed.on_evict = self._state.on_evict = None

    def release(self, *, idle: bool) -> None:
        """Let unfinished headers, and a connection without streams, be evicted.

        Then they make room for others.
        """
        self._handling = False
        if self._unparsed.size > _FRAME_BYTES:
            self._unparsed.on_evict = self._connection.abort
        if idle:
            self._state.on_evict = self._connection.abort

    def on_stream_ended(self, *, idle: bool) -> None:
        """Let a connection without streams be evicted.

        Unless its frames are being handled.
        """
        if not self._handling:
            self.release(idle=idle)

    def count_unparsed(self, size: int) -> bool:
        """Count the bytes of frames that have not ended.

        Without room for a header block the connection ends, and False is returned. A single frame is of a stream,
        which is rejected for itself once the frame has ended.
        """
        more = size - self._unparsed.size
        if more < 0:
            self._unparsed.release(-more)
        elif more:
            try:
                self._unparsed.acquire(more)
            except Rejected:
                if size > _FRAME_BYTES:
                    self._connection.abort()
                    return False
        return True

    def on_request(self) -> None:
        """Note a request: the connection that had none for longest makes room first."""
        self._state.renew()

    def close(self) -> None:
        """Release everything."""
        self._state.close()
        self._unparsed.close()
