"""gRPC channels to chain nodes."""

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

import grpc
import grpc.aio

from pocket.chain.failover import NodeAddress
from pocket.runtime.grpc_authorities import channel_credentials

_RECEIVE_LIMIT: Final = 128 * 1024 * 1024  # a whole block, which CometBFT bounds at 100 MiB
_CONNECT_MILLISECONDS: Final = 3000
_IDLE_SECONDS: Final = 30.0
"""Opening a channel takes as much CPU as gRPC's threads in this time."""


class NodeChannel(Protocol):
    """The part of a channel that queries need."""

    def unary_unary(self, method: str, request_serializer: None, response_deserializer: None) -> Callable[..., Any]:
        """Return what begins a query of a method."""

    async def close(self, grace: float | None = None) -> None:
        """Close the channel."""


class IdleChannel:
    """A channel that is open while it is used, and for some time after that.

    As long as a process has any channel, gRPC's threads wake several times a second.
    """

    def __init__(self, open_channel: Callable[[], grpc.aio.Channel], idle_seconds: float = _IDLE_SECONDS) -> None:
        self._open_channel = open_channel
        self._idle_seconds = idle_seconds
        self._channel: grpc.aio.Channel | None = None
        self._running = 0
        self._used_at = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    def unary_unary(self, method: str, request_serializer: None, response_deserializer: None) -> Callable[..., Any]:
        """Return what begins a query of a method, as grpc.aio's channel does."""

        def begin(request: bytes, **options: Any) -> Any:
            if self._closed:
                raise grpc.aio.UsageError("Channel is closed.")
            if self._channel is None:
                self._channel = self._open_channel()
            call = self._channel.unary_unary(method, request_serializer, response_deserializer)(request, **options)
            self._running += 1
            call.add_done_callback(self._ended)
            return call

        return begin

    def _ended(self, call: Any) -> None:
        loop = asyncio.get_running_loop()
        self._running -= 1
        self._used_at = loop.time()
        if self._timer is None and not self._closed:
            self._timer = loop.call_later(self._idle_seconds, self._close_if_idle)

    def _close_if_idle(self) -> None:
        loop, self._timer = asyncio.get_running_loop(), None
        left = self._used_at + self._idle_seconds - loop.time()
        if self._running:
            return  # the end of the last query sets the timer again
        if left > 0:
            self._timer = loop.call_later(left, self._close_if_idle)
        elif self._channel is not None:
            channel, self._channel = self._channel, None
            closing = loop.create_task(channel.close(None))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def close(self, grace: float | None = None) -> None:
        """Close the channel for good. Running queries end after `grace` seconds, without it at once."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close(grace)
        await asyncio.gather(*self._closing)


def channel_of(address: NodeAddress) -> NodeChannel:
    """Return a channel with keep-alive and a bounded receive size."""
    return IdleChannel(lambda: _open(address))


def _open(address: NodeAddress) -> grpc.aio.Channel:
    target, secure = address.grpc_target
    options = [
        ("grpc.keepalive_time_ms", 60_000),
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
