"""A peer that hangs must not make each supplier wait for it at every block."""

import asyncio

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from pocket_miner.ingest import peers


async def test_a_peer_that_hangs_is_not_asked_again_for_a_while(monkeypatch):
    asked, release = [], asyncio.Event()

    async def hang(request):
        asked.append(request.path)
        await release.wait()
        return web.json_response(None)

    monkeypatch.setattr(peers, "_SECONDS", 0.05)
    app = web.Application()
    app.add_routes([web.get("/peer/sessions", hang), web.get("/peer/ended", hang)])
    async with TestServer(app) as server, aiohttp.ClientSession() as http:
        url = str(server.make_url("")).rstrip("/")
        found = peers.Peers(http, lambda: [url])
        for _ in range(3):
            assert await found.sessions("pokt1a") == (False, [])
            assert await found.ended("pokt1a", ["s"]) == (False, set())
        assert len(asked) == 1
        monkeypatch.setattr(peers, "_REST_SECONDS", 0.0)
        found._rests_until.clear()
        for _ in range(2):
            assert await found.sessions("pokt1a") == (False, [])
        assert len(asked) == 3
        release.set()


async def test_outcomes_of_any_number_of_sessions_are_asked_for_in_parts_that_fit_into_a_url():
    asked = []

    async def ended(request):
        asked.append(request.query["sessions"].split(","))
        return web.json_response({"ended": asked[-1][-1:]})

    app = web.Application()
    app.add_routes([web.get("/peer/ended", ended)])
    names = [f"{number:064}" for number in range(120)]
    async with TestServer(app) as server, aiohttp.ClientSession() as http:
        found = peers.Peers(http, lambda: [str(server.make_url("")).rstrip("/")])
        assert await found.ended("pokt1a", names) == (True, {names[49], names[99], names[119]})
    assert [name for part in asked for name in part] == names
