"""Several miners of one supplier, each with a volume of its own, that ask each other."""

import contextlib
from dataclasses import replace

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.stream_reader import StreamReader
from pocket_miner.ingest import peers
from pocket_miner.ingest.relay_consumer import RelayConsumer
from pocket_miner.suppliers.standby import Standby

KEYS = RedisKeys("test")


@contextlib.asynccontextmanager
async def served(owner):
    """Another miner's asking side of what this one's volume holds."""
    app = web.Application()
    app.add_routes(peers.routes(lambda: (owner.relay_store, owner.audit)))
    async with TestServer(app) as server, aiohttp.ClientSession() as http:
        url = str(server.make_url("")).rstrip("/")
        yield peers.Peers(http, lambda: [url])


def ask(made, asked):
    """Let a miner ask others."""
    made.miner.peers = made.miner.concluder.peers = asked


@contextlib.contextmanager
def another(alice, name="other", asked=None):
    """Start a miner on an empty volume of its own."""
    made = replace(alice, folder=alice.folder / name, relay_store=None, audit=None, miner=None)
    made.start()
    ask(made, asked)
    try:
        yield made
    finally:
        made.close()


def follow(made):
    """Return a standby on the volume of a miner."""
    sessions = {}
    consumer = RelayConsumer(
        StreamReader(made.redis, KEYS, made.supplier), made.relay_store, made.client, sessions, owner=False
    )
    return Standby(StreamReader(made.redis, KEYS, made.supplier), consumer, made.relay_store, made.audit, sessions)
