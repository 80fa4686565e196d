"""A process that shares the chain cache: answers questions from its standard input, and tells of every version it met.

`application ADDRESS` → `application <gateways>`; `ring` is not asked: it is derived from this record.
"""

import asyncio
import json
import sys

from pocket.chain.failover import NodeAddress
from pocket.chain_cache.cached_client import CachedChain
from pocket.chain_cache.invalidation import InvalidationSubscriber
from pocket.errors import NotFound
from pocket.redis_store.connection import connect
from pocket.redis_store.redis_keys import RedisKeys


async def main(redis_url: str, prefix: str, grpc: str, rpc: str) -> None:
    redis, keys = connect(redis_url), RedisKeys(prefix)
    # A clock that stands still: nothing is ever forgotten by age, only by news.
    chain = CachedChain([NodeAddress.parse(grpc, rpc)], redis, keys, clock=lambda: 0.0)

    def tell(*row: object) -> None:
        print(json.dumps(row), flush=True)  # noqa: T201 - the test reads it

    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    follower = InvalidationSubscriber(redis, keys, chain, lambda version: tell("version", version), rng=lambda: 0.0)
    task = asyncio.create_task(follower.run())
    while line := await reader.readline():
        address = line.decode().split()[1]
        try:
            tell("application", (await chain.application(address)).delegations.gateway_addresses)
        except NotFound:
            tell("application", None)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await chain.close()
    await redis.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
