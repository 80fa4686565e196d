"""gRPC channels to chain nodes."""

from typing import Final

import grpc
import grpc.aio

from pocket.chain.failover import NodeAddress
from pocket.runtime.grpc_authorities import channel_credentials

_RECEIVE_LIMIT: Final = 128 * 1024 * 1024  # a whole block, which CometBFT bounds at 100 MiB
_CONNECT_MILLISECONDS: Final = 3000


def channel_of(address: NodeAddress) -> grpc.aio.Channel:
    """Return a channel with keep-alive and a bounded receive size."""
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
