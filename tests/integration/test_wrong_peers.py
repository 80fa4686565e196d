"""Peers that lie, repeat themselves, send too much or hang keep no supplier from starting."""

import asyncio
import base64
import contextlib
import dataclasses
import json

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from mine import mine, slow_root, unharmed
from other_miners import another, ask
from pocket.protocol.relays.messages import decode_relay
from pocket.protocol.transactions.build import Timestamp, TransactionPlan, create_claim_message, sign_transaction
from pocket.redis_store.seals import SessionSeal
from pocket_miner.ingest import peers
from pocket_miner.ingest.session_copies import SessionCopies
from pocket_miner.storage.trie_pool import compute_root
from world import key

pytestmark = pytest.mark.redis


@contextlib.asynccontextmanager
async def lying(answers):
    """Another miner that answers as the functions in `answers` do, by path."""

    async def answer(request):
        return web.Response(text=answers[request.path](request), content_type="application/json")

    app = web.Application()
    app.add_routes([web.get(path, answer) for path in answers])
    async with TestServer(app) as server, aiohttp.ClientSession() as http:
        url = str(server.make_url("")).rstrip("/")
        yield peers.Peers(http, lambda: [url])


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


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("stated", ["another root", "more relays"])
async def test_the_seal_of_a_peer_is_claimed_only_if_relays_have_its_root(alice, stated, restarted):
    header = alice.header()
    rows, number = alice.relays(header, 3), 3 if stated == "another root" else 4
    await alice.record(rows)
    root = bytes(32) + (100 * number).to_bytes(8, "big") + number.to_bytes(8, "big")
    seals = [{"end": 10, "seal": SessionSeal(header.session_id, root, bytes(32), 12, 99).encode()}]
    lies = answers_of(header, seals=json.dumps(seals))
    lies["/peer/relays"] = lambda _: '{"relays": [], "next": null}'
    async with lying(lies) as asked:
        ask(alice, asked)
        await alice.to(12)
        assert alice.claim(header) is None
        if restarted:
            alice.start()
            ask(alice, asked)
        await alice.to(21)
    assert alice.outcomes()[header.session_id]["details"]["root"] == slow_root(rows).hex()
    assert unharmed(alice, header)


async def test_relays_that_a_peer_sealed_are_awaited_until_the_second_half_of_the_window(alice):
    header = alice.header()
    rows = alice.relays(header, 4)
    await alice.record(rows[:3])
    root, page = slow_root(rows), json.dumps({"relays": [], "next": None})
    seals = [{"end": 10, "seal": SessionSeal(header.session_id, root, bytes(32), 12, 1).encode()}]
    answers = answers_of(header, seals=json.dumps(seals))
    answers["/peer/relays"] = lambda request: page if not request.query["after"] else '{"relays": [], "next": null}'
    async with lying(answers) as asked:
        ask(alice, asked)
        await alice.to(13)
        assert alice.miner.sessions[header.session_id].seal is None
        page = json.dumps({"relays": [base64.b64encode(rows[3].relay).decode()], "next": "01"})
        await alice.to(15)
        assert alice.claim(header).root_hash == root


def signed_claim(made, number, header, root, by="alice", chain_id="pocket"):
    """Return a peer's answer with a claim of a root, signed with a key for an account's number."""
    message = create_claim_message(made.supplier, header, root)
    plan = TransactionPlan((message,), chain_id, number, 100_000, 1, Timestamp(1_700_000_000, 0))
    return json.dumps({"claims": [base64.b64encode(sign_transaction(plan, key(by)).raw).decode()]})


CLAIMED = {
    "signed": (3, signed_claim),
    "with another root": (4, lambda made, number, header, _: signed_claim(made, number, header, bytes(48))),
    "with another key": (4, lambda *row: signed_claim(*row, by="bob")),
    "on another chain": (4, lambda *row: signed_claim(*row, chain_id="other")),
    "none": (4, lambda *_: '{"claims": []}'),
    "garbage": (4, lambda *_: '{"claims": ["AAAA", "!", 1]}'),
}


@pytest.mark.parametrize("claim", CLAIMED)
async def test_fewer_relays_than_are_here_are_claimed_only_if_a_peer_has_a_signed_claim_of_them(alice, claim):
    """A Redis that lost its data takes relays that are recorded after the seal. A session is sealed once."""
    header = alice.header()
    rows = alice.relays(header, 4)
    await alice.record(rows)
    root = slow_root(rows[:3])
    seals = [{"end": 10, "seal": SessionSeal(header.session_id, root, bytes(32), 12, 1).encode()}]
    number, make = CLAIMED[claim]
    answer = make(alice, (await alice.client.account(alice.supplier)).number, header, root)
    answers = {"/peer/seals": json.dumps(seals), "/peer/sessions": "[]", "/peer/claims": answer}
    async with lying({path: lambda _, text=text: text for path, text in answers.items()}) as asked:
        ask(alice, asked)
        await alice.to(16)
        assert alice.claim(header).root_hash == slow_root(rows[:number])
    await alice.to(21)
    assert unharmed(alice, header)


async def test_a_claim_with_the_root_that_a_peer_sealed_is_no_strangers(redis, tmp_path):
    """Its relays cannot be had: the claim is settled all the same, and the books say so."""
    params = {"proof_request_probability": 0.0, "proof_requirement_threshold": 10**12}
    async with mine(redis, tmp_path, proof_params=params) as alice:
        header = await alice.recorded(4)
        await alice.to(14)
        root = alice.claim(header).root_hash
        await redis.flushall()
        await alice.record(alice.relays(header, 1))
        seals = [{"end": 10, "seal": SessionSeal(header.session_id, root, bytes(32), 12, 1).encode()}]
        async with lying({"/peer/seals": lambda _: json.dumps(seals), "/peer/sessions": lambda _: "[]"}) as asked:
            with another(alice, asked=asked) as other:
                await other.to(22)
                assert other.outcomes()[header.session_id]["outcome"] == "settled"
                assert other.outcomes()[header.session_id]["details"]["relays"] == 4


@pytest.mark.parametrize("copied", [False, True])
async def test_no_relay_of_a_peer_becomes_a_leaf_without_the_signatures_of_ring_and_supplier(alice, copied):
    """The chain draws which relay is proven, and a proof of a wrong one costs stake."""
    header = alice.header()
    rows = alice.relays(header, 4)
    await alice.record(rows[:1])
    signature = decode_relay(rows[3].relay).response.supplier_operator_signature
    forged = [rows[2].relay.replace(b'{"id"', b'{"xx"'), rows[3].relay.replace(signature, bytes(64))]
    given = [base64.b64encode(relay).decode() for relay in (rows[1].relay, *forged)]
    first, last = json.dumps({"relays": given, "next": "01"}), json.dumps({"relays": [], "next": None})
    lies = answers_of(header) | {"/peer/relays": lambda request: last if request.query["after"] else first}
    async with lying(lies) as asked:
        if not copied:
            ask(alice, asked)
        await alice.to(12)
        if copied:
            copies = SessionCopies(alice.miner.consumer, alice.relay_store, asked)
            async with copies.of(alice.miner.sessions[header.session_id]) as path:
                assert compute_root(str(path), alice.supplier, header.session_id).root == slow_root(rows[:2])
            return
        await alice.to(21)
    assert alice.outcomes()[header.session_id]["details"]["root"] == slow_root(rows[:2]).hex()
    assert unharmed(alice, header)
