"""Several chain nodes in memory, some of which answer wrongly, and a relayer's or miner's client of them."""

import contextlib

import grpc
import grpc.aio

from pocket.chain.failover import NodeAddress
from pocket.chain.node_answer import HEIGHT_HEADER
from pocket.chain_cache.cached_client import CachedChain
from pocket.redis_store.redis_keys import RedisKeys
from pocket_localnet.grpc_service import answer
from pocket_localnet.local_chain import LocalChain
from world import World

WORLD, KEYS = World(), RedisKeys("wrong")
PLACES = [NodeAddress.parse(f"{name}:9090", f"http://{name}") for name in ("bad", "good", "better")]
APP = WORLD.application("eth")
SILENT = grpc.aio.AioRpcError(
    grpc.StatusCode.DEADLINE_EXCEEDED, grpc.aio.Metadata(), grpc.aio.Metadata(), "Deadline Exceeded"
)


class Reply:
    """A node's reply with the height of its state."""

    def __init__(self, raw=b"", height=0, error=None):
        self.raw, self.height, self.error = raw, height, error

    def __await__(self):
        yield from ()
        if self.error is not None:
            raise self.error
        return self.raw

    async def initial_metadata(self):
        return ((HEIGHT_HEADER, str(self.height)),)


class Node:
    """A channel to a localnet, whose answers of one type are changed, or which fails."""

    def __init__(self, chain=None, kind=None, change=None, error=None):
        self.chain, self.kind, self.change, self.error = chain, kind, change, error
        self.asked = []

    def unary_unary(self, method, *_):
        def call(request, timeout, metadata):
            self.asked.append(method)
            if self.error is not None and self.kind in (None, method):
                return Reply(error=self.error)
            raw, height = answer(self.chain, method, request, dict(metadata).get(HEIGHT_HEADER, "0"))
            if self.change is not None and method == self.kind[0]:
                message = self.kind[1].FromString(raw)
                self.change(message)
                raw = message.SerializeToString()
            return Reply(raw, height)

        return call

    def renew(self):
        return

    async def close(self, _):
        return


def localnet():
    chain = LocalChain(WORLD.genesis())
    while chain.height < 6:
        chain.step()
    return chain


@contextlib.asynccontextmanager
async def cached(redis, *nodes):
    """Make a new process's client of these nodes."""
    channels = dict(zip(PLACES, nodes, strict=False))
    chain = CachedChain([*channels], redis, KEYS, timeout_seconds=2.0, channel=channels.__getitem__)
    yield chain
    await chain.close()
