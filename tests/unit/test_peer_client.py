"""A peer that hangs must not make each supplier wait for it at every block."""

import asyncio
import base64

import aiohttp
import pytest
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


@pytest.mark.parametrize(("pages", "complete"), [([1, 2, 0], True), ([1, 1], False), ([2, 1], False)])
async def test_pages_of_a_peer_that_lead_nowhere_are_not_read_for_ever(pages, complete):
    left = list(pages)

    async def relays(request):
        number = left.pop(0)
        return web.json_response({"relays": ["AAAA"] * bool(number), "next": f"{number:02x}" if number else None})

    app, taken = web.Application(), []
    app.add_routes([web.get("/peer/relays", relays)])

    async def take(values):
        taken.extend(values)

    async with TestServer(app) as server, aiohttp.ClientSession() as http:
        url = str(server.make_url("")).rstrip("/")
        session = peers.PeerSession(url, "s", b"", "5-0", "", 1)
        assert await peers.Peers(http, lambda: [url]).relays(session, "pokt1a", 10, take) is complete
    assert (left, len(taken)) == ([], 2 if complete else 1)


@pytest.mark.parametrize(("size", "usable"), [(100, True), (200_000, False)])
async def test_an_answer_of_a_peer_is_read_up_to_a_limit(monkeypatch, size, usable):
    async def ended(request):
        return web.json_response({"ended": ["s"], "more": "x" * size})

    monkeypatch.setattr(peers, "_ANSWER_BYTES", 100_000)
    app = web.Application()
    app.add_routes([web.get("/peer/ended", ended)])
    async with TestServer(app) as server, aiohttp.ClientSession() as http:
        url = str(server.make_url("")).rstrip("/")
        answered = await peers.Peers(http, lambda: [url]).ended("pokt1a", ["s"])
    assert answered == ((True, {"s"}) if usable else (False, set()))


@pytest.mark.parametrize("text", ["AAAA", "AA\nAA", "AA*AA", "AAA", "\u00e9AAA"])
async def test_what_is_not_base64_is_no_answer_of_a_peer(text):
    async def claims(request):
        return web.json_response({"claims": ["BBBB", text]})

    async def relays(request):
        last = not request.query["after"]
        return web.json_response({"relays": [text] if last else [], "next": "01" if last else None})

    app, taken = web.Application(), []
    app.add_routes([web.get("/peer/claims", claims), web.get("/peer/relays", relays)])

    async def take(values):
        taken.extend(values)

    async with TestServer(app) as server, aiohttp.ClientSession() as http:
        url = str(server.make_url("")).rstrip("/")
        found = peers.Peers(http, lambda: [url])
        usable = text == "AAAA"
        assert await found.claims("pokt1a", 10) == ({base64.b64decode("BBBB"), bytes(3)} if usable else set())
        session = peers.PeerSession(url, "s", b"", "5-0", "", 1)
        assert await found.relays(session, "pokt1a", 10, take) is usable
    assert taken == [bytes(3)] * usable
