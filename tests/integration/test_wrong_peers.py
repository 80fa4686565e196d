"""Peers that lie, repeat themselves, send too much or hang keep no supplier from starting."""

import asyncio
import contextlib
import dataclasses
import json

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from pocket_miner.ingest import peers

pytestmark = pytest.mark.redis


@contextlib.asynccontextmanager
async def lying(answers):
    """Another miner that answers as the functions in `answers` do, by path."""

    async def answer(request):
        return web.Response(text=answers[request.path](request), content_type="application/json")

    app = web.Application()
    app.add_routes([web.get(path, answer) for path in answers])
    async with TestServer(app) as server, aiohttp.ClientSession() as http:
        yield peers.Peers(http, lambda: [str(server.make_url("")).rstrip("/")])


def answers_of(header, **changes):
    row = {"session_id": header.session_id, "header": header.encode().hex(), "position": "9-9", "incarnation": "x",
           "count": 10**9}  # fmt: skip
    seals = changes.pop("seals", "[]")
    page = json.dumps({"relays": ["AAAA"], "next": "01"})
    return {
        "/peer/sessions": lambda _: json.dumps([row | changes]),
        "/peer/seals": lambda _: seals,
        "/peer/relays": lambda _: page,
    }


INFINITE = '{"session_id": "s", "root": "00", "leaf_digest": "00", "height": 1e999, "epoch": 1}'
LIES = {
    "a position that is none": {"position": "abc"},
    "the same page again and again": {},
    "an infinite session end": {"seals": '[{"end": 1e999, "seal": "{}"}]'},
    "an infinite height": {"seals": json.dumps([{"end": 1, "seal": INFINITE}])},
    "nesting without end": {"seals": "[" * 100_000},
}


@pytest.mark.parametrize("lie", LIES)
async def test_no_answer_of_a_peer_keeps_a_supplier_from_starting(alice, lie):
    await alice.record(alice.relays(alice.header(), 3))
    async with lying(answers_of(alice.header(), **LIES[lie])) as asked:
        alice.miner.peers = alice.miner.concluder.peers = asked
        assert await asyncio.wait_for(alice.miner.tail(), 10) == 3


async def test_an_answer_without_end_is_not_read_to_its_end(alice, monkeypatch):
    monkeypatch.setattr(peers, "_ANSWER_BYTES", 1000)
    async with lying({"/peer/sessions": lambda _: json.dumps(["x" * 1000])}) as asked:
        assert await asked.sessions(alice.supplier) == (False, [])


async def test_a_page_with_relays_that_names_no_later_one_is_not_the_last(alice):
    taken, known = [], peers.PeerSession("", alice.header().session_id, b"", "1-0", "x", 1)

    async def take(values):
        taken.extend(values)

    async with lying({"/peer/relays": lambda _: json.dumps({"relays": ["AAAA"], "next": None})}) as asked:
        (url,) = asked._urls()
        assert not await asked.relays(dataclasses.replace(known, url=url), alice.supplier, 10, take)
    assert taken == []


async def test_peers_that_hang_are_waited_for_together(alice):
    waiting, gone = [], asyncio.Event()

    async def hang(request):
        waiting.append(request.path)
        await gone.wait()
        return web.Response()

    app = web.Application()
    app.router.add_get("/{peer}/peer/{what}", hang)
    async with TestServer(app) as server, aiohttp.ClientSession() as http:
        asked = peers.Peers(http, lambda: [str(server.make_url(f"/{name}")) for name in "abc"])
        for query in (asked.sessions, asked.seals):
            waiting.clear()
            asking = asyncio.create_task(query(alice.supplier))
            async with asyncio.timeout(10):
                while len(waiting) < 3:  # noqa: ASYNC110 - the server does not tell
                    await asyncio.sleep(0.01)
            asking.cancel()
        gone.set()
