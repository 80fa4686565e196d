"""gRPC channels to chain nodes."""

import asyncio
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import grpc
import grpc.aio

from pocket.chain.failover import NodeAddress
from pocket.runtime.grpc_authorities import channel_credentials

_RECEIVE_LIMIT: Final = 128 * 1024 * 1024  # a whole block, which CometBFT bounds at 100 MiB
_CONNECT_MILLISECONDS: Final = 3000
_IDLE_SECONDS: Final = 15.0
"""Opening a channel takes as much CPU as gRPC's threads in this time."""
_RENEWAL_SECONDS: Final = 1.0
"""Least time between two connections to a node that fails."""


@dataclass(eq=False, slots=True)
class _OpenChannel:
    """A channel of gRPC, when it was opened, and how many queries run on it."""

    channel: grpc.aio.Channel
    opened_at: float
    running: int = 0


class NodeChannel(Protocol):
    """The part of a channel that queries need."""

    def unary_unary(self, method: str, request_serializer: None, response_deserializer: None) -> Callable[..., Any]:
        """Return what begins a query of a method."""

    def renew(self) -> None:
        """Have later queries use a new connection."""

    async def close(self, grace: float | None = None) -> None:
        """Close the channel."""


class IdleChannel:
    """A channel that is open while it is used, and for some time after that.

    As long as a process has any channel, gRPC's threads wake several times a second.
    """

    def __init__(self, open_channel: Callable[[], grpc.aio.Channel], idle_seconds: float = _IDLE_SECONDS) -> None:
        self._open_channel = open_channel
        self._idle_seconds = idle_seconds
        self._current: _OpenChannel | None = None
        self._used_at = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        self._former: set[_OpenChannel] = set()
        """Channels that were renewed, while their last queries run."""
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    def unary_unary(self, method: str, request_serializer: None, response_deserializer: None) -> Callable[..., Any]:
        """Return what begins a query of a method, as grpc.aio's channel does."""

        def begin(request: bytes, **options: Any) -> Any:
            if self._closed:
                raise grpc.aio.UsageError("Channel is closed.")
            if self._current is None:
                self._current = _OpenChannel(self._open_channel(), asyncio.get_running_loop().time())
            used = self._current
            call = used.channel.unary_unary(method, request_serializer, response_deserializer)(request, **options)
            used.running += 1
            call.add_done_callback(functools.partial(self._ended, used))
            return call

        return begin

    def _ended(self, used: _OpenChannel, call: Any) -> None:
        loop = asyncio.get_running_loop()
        used.running -= 1
        if used is not self._current:
            if used in self._former and not used.running:
                self._former.remove(used)
                self._close_later(used)
            return
        self._used_at = loop.time()
        if self._timer is None and not self._closed:
            self._timer = loop.call_later(self._idle_seconds, self._close_if_idle)

    def _close_if_idle(self) -> None:
        loop, self._timer = asyncio.get_running_loop(), None
        used, left = self._current, self._used_at + self._idle_seconds - loop.time()
        if used is None or used.running:
            return  # the end of the last query sets the timer again
        if left > 0:
            self._timer = loop.call_later(left, self._close_if_idle)
        else:
            self._current = None
            self._close_later(used)

    def renew(self) -> None:
        """Have later queries use a new connection.

        The node's name is resolved again for it. gRPC keeps a connection to an address that the name has left, and
        resolves a name at most every 30 seconds. A connection that was opened a moment ago is kept. Running queries go
        on.
        """
        used = self._current
        if used is None or asyncio.get_running_loop().time() - used.opened_at < _RENEWAL_SECONDS:
            return
        self._current = None
        if used.running:
            self._former.add(used)
        else:
            self._close_later(used)

    def _close_later(self, used: _OpenChannel) -> None:
        closing = asyncio.get_running_loop().create_task(used.channel.close(None))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def close(self, grace: float | None = None) -> None:
        """Close the channel for good.

        Running queries end after `grace` seconds, without it at once.
        """
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        last = [*self._former, *filter(None, [self._current])]
        self._current = None
        self._former.clear()
        for used in last:
            await used.channel.close(grace)
        await asyncio.gather(*self._closing)


def channel_of(address: NodeAddress) -> NodeChannel:
    """Return a channel with keep-alive and a bounded receive size."""
    return IdleChannel(lambda: _open(address))


def _open(address: NodeAddress) -> grpc.aio.Channel:
    target, secure = address.grpc_target
    options = [
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 10_000),  # also after which the kernel gives up a connection without an answer
        ("grpc.max_receive_message_length", _RECEIVE_LIMIT),
        # A node that is back is asked within seconds; gRPC's own pause grows to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 500),
        ("grpc.min_reconnect_backoff_ms", _CONNECT_MILLISECONDS),  # how long one attempt to connect may take
        ("grpc.max_reconnect_backoff_ms", _CONNECT_MILLISECONDS),
        # A connection of its own: behind one address a new connection may reach another node.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if secure:
        return grpc.aio.secure_channel(target, channel_credentials(), options=options)
    return grpc.aio.insecure_channel(target, options=options)
