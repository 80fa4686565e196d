"""Every transport through real sockets and real clients: the same admission, metering, signing and ledger."""

import asyncio
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from callers import TRANSPORTS, http1
from forms import other_forms
from hostile_clients import held
from pocket.protocol.crypto.ecdsa import verify_signature
from pocket.protocol.relays.messages import decode_mined_relay, decode_relay_response
from pocket_relayer import relayer_metrics
from pocket_relayer.limits.rejection import RejectionReason
from relays import KEYS
from transports import all_transports, consumed
from world import address, key

pytestmark = pytest.mark.redis
LABEL = {"http1": "http", "http2": "http", "grpc": "grpc", "grpc_web": "grpc_web", "websocket": "websocket"}


def count(transport, reason, service="eth"):
    return relayer_metrics.REJECTED.labels(service, LABEL[transport], reason)._value.get()


def framed(relayer, transport, **changes):
    """Return a signed relay.

    Over WebSocket the payload is the frame itself.
    """
    request = relayer.request(**changes)
    if transport != "websocket":
        return request
    return relayer.world.signed(replace(request, payload=b"ping"))


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_relay_of_every_transport_is_served_signed_charged_and_mined_once(redis, tmp_path, transport):
    async with all_transports(redis, tmp_path) as (relayer, _):
        request = framed(relayer, transport)
        outcome = await TRANSPORTS[transport](relayer.url, request.encode())
        assert outcome.body, outcome
        response = decode_relay_response(outcome.body)
        assert verify_signature(key("alice").public_key, response.signable_hash(), response.supplier_operator_signature)
        (leaf,) = await relayer.leaves()
        _, mined_request, mined_response, _ = decode_mined_relay(leaf)
        assert mined_request == request
        assert mined_response == response.without_payload()
        assert await consumed(relayer) == 100


def forged(relayer, transport):
    return replace(framed(relayer, transport), signature=relayer.world.signed(relayer.request(body=b"other")).signature)


def of_a_stranger(relayer, transport):
    return replace(framed(relayer, transport), supplier_operator_address=address("nobody"))


def without_supplier(relayer, transport):
    return replace(framed(relayer, transport), supplier_operator_address="")


def with_absurd_heights(relayer, transport):
    request = framed(relayer, transport)
    return replace(request, header=replace(request.header, session_end_block_height=10**9))


def with_a_forged_start(relayer, transport):
    request = framed(relayer, transport)
    header = replace(request.header, session_id="0" * 64)
    return relayer.world.signed(replace(request, header=header))


def after_the_grace_period(relayer, transport):
    request = framed(relayer, transport)
    relayer.height[0] = 1000
    return request


def unsigned(relayer, transport):
    return replace(framed(relayer, transport), signature=b"")


def of_an_unstaked_supplier(relayer, transport):
    relayer.keys[address("carol")] = key("carol")
    return relayer.world.signed(replace(framed(relayer, transport), supplier_operator_address=address("carol")))


REFUSALS = {
    "invalid_signature": (forged, 403, 7, 4001),
    "supplier_not_found": (of_a_stranger, 503, 9, 4001),
    "supplier_missing": (without_supplier, 400, 3, 4001),
    "implausible_heights": (with_absurd_heights, 400, 3, 4001),
    "session_mismatch": (with_a_forged_start, 403, 7, 4001),
    "session_expired": (after_the_grace_period, 403, 7, 4000),
    "invalid_request": (unsigned, 400, 3, 4001),
    "supplier_inactive": (of_an_unstaked_supplier, 503, 9, 4001),
}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("reason", REFUSALS)
async def test_every_transport_refuses_alike_and_nothing_is_asked_charged_or_mined(redis, tmp_path, transport, reason):
    make, http_status, grpc_status, close_code = REFUSALS[reason]
    async with all_transports(redis, tmp_path) as (relayer, sockets):
        request = make(relayer, transport)
        before = count(transport, reason)
        outcome = await TRANSPORTS[transport](relayer.url, request.encode())
        wanted = {"http": http_status, "grpc": grpc_status, "grpc_web": grpc_status, "websocket": close_code}
        assert outcome.code == wanted[LABEL[transport]], outcome
        assert count(transport, reason) == before + 1
        assert (relayer.backend.requests, sockets.frames) == ([], [])
        assert await consumed(relayer) == 0
        assert await relayer.leaves() == []


NOWHERE = {
    "jsonRpc": {"urls": ["http://127.0.0.1:1"]},
    "rest": {"urls": ["http://127.0.0.1:1"]},
    "webSocket": {"urls": ["ws://127.0.0.1:1"]},
}


def plain(relayer, transport):
    return framed(relayer, transport)


def too_large(relayer, transport):
    return relayer.world.signed(replace(framed(relayer, transport), payload=b"x" * 100_001))


def of_no_service(relayer, transport):
    request = framed(relayer, transport)
    return replace(request, header=replace(request.header, service_id="nothing"))


SET_UPS = {
    "application_refused": ({"service": {"applications": {"deny": [address("app eth")]}}}, plain, 403, 7, 4001),
    "backend_failed": ({"service": {"backends": NOWHERE}}, plain, 502, 14, 4003),
    "body_too_large": ({}, too_large, 413, 8, 1009),
    "unknown_service": ({}, of_no_service, 404, 5, 4001),
}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("reason", SET_UPS)
async def test_every_transport_refuses_alike_what_its_set_up_cannot_serve(redis, tmp_path, transport, reason):
    options, make, http_status, grpc_status, close_code = SET_UPS[reason]
    async with all_transports(redis, tmp_path, **options) as (relayer, sockets):
        request = make(relayer, transport)
        # What is refused before it is decoded, or at all, belongs to no service; a WebSocket has named its service.
        service = "" if reason in ("unknown_service", "body_too_large") and transport != "websocket" else "eth"
        before = count(transport, reason, service)
        outcome = await TRANSPORTS[transport](relayer.url, request.encode())
        wanted = {"http": http_status, "grpc": grpc_status, "grpc_web": grpc_status, "websocket": close_code}
        assert outcome.code == wanted[LABEL[transport]], outcome
        assert count(transport, reason, service) == before + 1
        await relayer.budgets.drain()
        assert (relayer.backend.requests, sockets.frames) == ([], [])
        assert await consumed(relayer) == 0
        assert await relayer.leaves() == []


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_what_is_no_relay_request_is_refused_by_every_transport(redis, tmp_path, transport):
    async with all_transports(redis, tmp_path) as (relayer, sockets):
        outcome = await TRANSPORTS[transport](relayer.url, b'{"x":1}')
        assert outcome.code == {"http": 400, "grpc": 3, "grpc_web": 3, "websocket": 4001}[LABEL[transport]]
        assert (relayer.backend.requests, sockets.frames) == ([], [])


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_replayed_request_is_refused_by_every_transport(redis, tmp_path, transport):
    async with all_transports(redis, tmp_path) as (relayer, _):
        request = framed(relayer, transport)
        assert (await TRANSPORTS[transport](relayer.url, request.encode())).body
        relayer.backend.answer = (200, {}, b"another answer, so another leaf")
        again = await TRANSPORTS[transport](relayer.url, request.encode())
        assert again.code == {"http": 409, "grpc": 6, "grpc_web": 6, "websocket": 4001}[LABEL[transport]]
        assert len(await relayer.leaves()) == 1
        assert await consumed(relayer) == 100


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_replayed_request_is_refused_in_whatever_form_it_comes_again(redis, tmp_path, transport):
    async with all_transports(redis, tmp_path) as (relayer, _):
        request = framed(relayer, transport)
        assert (await TRANSPORTS[transport](relayer.url, request.encode())).body
        refused = {"http": {403, 409}, "grpc": {6, 7}, "grpc_web": {6, 7}, "websocket": {4001}}[LABEL[transport]]
        for name, form in other_forms(request).items():
            outcome = await TRANSPORTS[transport](relayer.url, form)
            assert outcome.code in refused, name
        assert len(await relayer.leaves()) == 1
        assert await consumed(relayer) == 100


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_beyond_the_budget_of_the_session_every_transport_refuses(redis, tmp_path, transport):
    # 10^12 upokt of stake * 25 / 10^10: two relays of 100 upokt fit, the third does not.
    async with all_transports(redis, tmp_path, service={"serviceFactor": 0.00000000025}) as (relayer, _):
        outcomes = [
            await TRANSPORTS[transport](relayer.url, framed(relayer, transport, body=b"%d" % n).encode())
            for n in range(3)
        ]
        assert outcomes[1].body
        assert outcomes[2].code == {"http": 429, "grpc": 8, "grpc_web": 8, "websocket": 4002}[LABEL[transport]]
        assert "session relay limit reached" in outcomes[2].text
        assert len(await relayer.leaves()) == 2
        assert await consumed(relayer) == 200


async def test_what_the_backend_did_not_serve_is_not_charged_and_may_come_again(redis, tmp_path):
    async with all_transports(redis, tmp_path) as (relayer, _):
        request = relayer.request()
        relayer.backend.answer = (503, {}, b"")
        assert (await http1(relayer.url, request.encode())).code == 503
        await relayer.budgets.drain()
        assert await consumed(relayer) == 0
        relayer.backend.answer = (200, {}, b"{}")
        assert (await http1(relayer.url, request.encode())).code == 200
        assert await consumed(relayer) == 100


async def test_what_may_yet_be_mined_keeps_its_charge_and_must_not_come_again(redis, tmp_path):
    async with all_transports(redis, tmp_path) as (relayer, _):
        request = relayer.request()
        await redis.set(KEYS.stream(address("alice"), relayer.header().session_id), "not a stream")
        refused = await http1(relayer.url, request.encode())
        told = json.loads(refused.text)
        assert (refused.code, told["error"], told["code"]) == (503, "the relay could not be recorded", "not_recorded")
        await relayer.budgets.drain()
        assert await consumed(relayer) == 100, "it is in the local log, which is appended again"
        assert (await http1(relayer.url, request.encode())).code == 409


async def test_what_comes_after_the_seal_is_not_charged(redis, tmp_path):
    async with all_transports(redis, tmp_path) as (relayer, _):
        session_id = relayer.header().session_id
        await redis.hset(KEYS.closed(address("alice")), session_id, "sealed")
        assert (await http1(relayer.url, relayer.request().encode())).code == 403
        await relayer.budgets.drain()
        assert await consumed(relayer) == 0


async def test_in_optimistic_mode_nothing_unproven_or_unserved_is_charged(redis, tmp_path):
    async with all_transports(redis, tmp_path, service={"validation": "optimistic"}) as (relayer, _):
        assert (await http1(relayer.url, forged(relayer, "http1").encode())).code == 403
        relayer.backend.answer = (503, {}, b"")
        assert (await http1(relayer.url, relayer.request().encode())).code == 503
        await relayer.budgets.drain()
        assert await consumed(relayer) == 0
        relayer.backend.answer = (200, {}, b"{}")
        assert (await http1(relayer.url, relayer.request().encode())).code == 200
        assert await consumed(relayer) == 100


@pytest.mark.parametrize("transport", ["http1", "http2", "grpc", "grpc_web"])
async def test_bodies_beyond_the_room_of_a_worker_are_put_off_and_the_room_comes_back(redis, tmp_path, transport):
    async with all_transports(redis, tmp_path, memory_bytes=240_000) as (relayer, _):
        large = relayer.request(body=b"x" * 70_000).encode()
        assert (await TRANSPORTS[transport](relayer.url, large)).code in (503, 14)
        assert relayer.backend.requests == []
        for n in range(3):
            assert (await TRANSPORTS[transport](relayer.url, relayer.request(body=b"%d" % n * 9000).encode())).body
        assert held(relayer) == 0


async def test_a_session_is_charged_exactly_to_its_budget_by_many_at_once(redis, tmp_path):
    async with all_transports(redis, tmp_path, service={"serviceFactor": 0.000000001}) as (relayer, _):
        sent = [http1(relayer.url, relayer.request(body=b"%d" % n).encode()) for n in range(30)]
        codes = sorted(outcome.code for outcome in await asyncio.gather(*sent))
        assert codes == [200] * 10 + [429] * 20
        assert await consumed(relayer) == 1000
        assert len(await relayer.leaves()) == 10


@pytest.mark.parametrize(
    ("policy", "code", "leaves"), [("refuse", 409, 1), ("serve-unpaid", 200, 1), ("serve", 200, 2)]
)
async def test_replays_follow_the_policy_of_the_service(redis, tmp_path, policy, code, leaves):
    async with all_transports(redis, tmp_path, service={"replays": policy}) as (relayer, _):
        body = relayer.request().encode()
        await http1(relayer.url, body)
        relayer.backend.answer = (200, {}, b"varied")
        assert (await http1(relayer.url, body)).code == code
        assert len(await relayer.leaves()) == leaves


async def test_equal_relays_are_one_leaf_and_counted(redis, tmp_path):
    """Request and answer are the same bytes: the trie holds them once, whatever was served."""
    before = REGISTRY.get_sample_value("pocket_relayer_relays_duplicate_total", {"service": "eth"}) or 0
    async with all_transports(redis, tmp_path, service={"replays": "serve"}) as (relayer, _):
        body = relayer.request().encode()
        for _ in range(3):
            assert (await http1(relayer.url, body)).code == 200
        assert len(set(await relayer.leaves())) == 1
    assert REGISTRY.get_sample_value("pocket_relayer_relays_duplicate_total", {"service": "eth"}) - before == 2


@pytest.mark.parametrize(("limits", "reason", "code"), [
    ({"applications": {"deny": [address("app eth")]}}, "application_refused", 403),
    ({"applications": {"allow": [address("somebody")]}}, "application_refused", 403),
    ({"rateLimit": {"relaysPerSecond": 1}}, "rate_limited", 429),
])  # fmt: skip
async def test_applications_can_be_denied_and_slowed_down(redis, tmp_path, limits, reason, code):
    async with all_transports(redis, tmp_path, service=limits) as (relayer, _):
        before = count("http1", reason)
        outcomes = [await http1(relayer.url, relayer.request(body=b"%d" % n).encode()) for n in range(2)]
        assert outcomes[1].code == code
        assert count("http1", reason) > before


@pytest.mark.parametrize(("behaviour", "code"), [(True, 503), (False, 503)])
async def test_without_redis_nothing_is_answered_that_could_not_be_recorded(redis, tmp_path, behaviour, code):
    async with all_transports(
        redis, tmp_path, open_when_unavailable=behaviour, budget_patience=0.3, record_patience=0.3
    ) as (relayer, _):
        assert (await http1(relayer.url, relayer.request(body=b"warm").encode())).code == 200
        await redis.execute_command("CLIENT", "PAUSE", "3000", "ALL")
        assert (await http1(relayer.url, relayer.request(body=b"x").encode())).code == code
        assert len(relayer.backend.requests) == (2 if behaviour else 1), "closed: not even the backend is asked"
        place = redis.connection_pool.connection_kwargs
        async with Redis(host=place["host"], port=place["port"], socket_timeout=10) as patient:
            await patient.ping()  # once the pause is over


REFUSALS_TOLD = {
    "http1": lambda outcome: (json.loads(outcome.text)["code"], json.loads(outcome.text)["request_id"]),
    "websocket": lambda outcome: outcome.text.rstrip(")").rpartition("(")[2].split(" "),
}


@pytest.mark.parametrize("transport", REFUSALS_TOLD)
async def test_a_refusal_tells_its_code_and_an_id_of_its_own(redis, tmp_path, transport):
    async with all_transports(redis, tmp_path) as (relayer, _):
        request = replace(framed(relayer, transport), signature=bytes(199))
        told = [REFUSALS_TOLD[transport](await TRANSPORTS[transport](relayer.url, request.encode())) for _ in range(2)]
        assert [code for code, _ in told] == ["invalid_signature"] * 2
        assert {len(name) for _, name in told} == {16}
        assert told[0][1] != told[1][1]


async def test_no_answer_tells_a_version(redis, tmp_path):
    async with all_transports(redis, tmp_path) as (relayer, _):
        asked = (("GET", "/health", b""), ("POST", "/", b"x"), ("TRACE", "/", b""), ("GET", "/ready/x", b""))
        for method, path, body in asked:
            async with relayer.http.request(method, relayer.url + path, data=body) as answer:
                told = repr(dict(answer.headers)) + await answer.text()
                assert answer.headers["Server"] == "relayer"
                assert not re.search(r"python|aiohttp|/\d", told, re.IGNORECASE)


def test_every_code_is_explained_and_no_other():
    page = (Path(__file__).resolve().parents[2] / "docs" / "relaying.md").read_text()
    table = page.partition("## Errors")[2].partition("###")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`(\w+)`", "".join(rows))) == {reason.label for reason in RejectionReason}
