"""The relayer's HTTP transport over real sockets: admission, backend, signing, ledger contents per relay."""

import asyncio
import contextlib
import gzip
import json
from dataclasses import replace
from urllib.parse import urlsplit

import aiohttp
import pytest

from pocket.api.relayminer import Recording, ResponseCompression
from pocket.protocol.crypto.ecdsa import verify_signature
from pocket.protocol.crypto.ring import sign_ring
from pocket.protocol.relays.envelope import HttpRequest, decode_http_response
from pocket.protocol.relays.messages import RelayRequest, decode_mined_relay, decode_relay_response
from pocket.redis_store.connection import connect
from pocket.redis_store.seals import SealStore
from pocket_relayer import relayer_metrics
from pocket_relayer.metric_batches import write_due
from pocket_relayer.pipeline.recording import LARGEST_LEAF
from relays import KEYS, Backend, listening, relaying
from servers import running_redis
from transports import consumed
from world import address, key

pytestmark = pytest.mark.redis


@pytest.fixture
async def relayer(redis, tmp_path):
    async with relaying(redis, tmp_path) as made:
        yield made


async def test_a_relay_is_served_signed_and_mined_exactly_as_served(relayer):
    request = relayer.request(body=b'{"jsonrpc":"2.0","id":7,"method":"m"}', url="http://gw:1/v1/x?y=1")
    status, headers, body = await relayer.send(request, {"Rpc-Type": "3"})
    assert (status, headers["Content-Type"]) == (200, "application/json")
    response = decode_relay_response(body)
    assert response.header == request.header
    assert verify_signature(key("alice").public_key, response.signable_hash(), response.supplier_operator_signature)
    envelope = decode_http_response(response.payload)
    assert (envelope.status, envelope.body) == (200, b'{"ok":true}')
    (leaf,) = await relayer.leaves()
    _, mined_request, mined_response, _ = decode_mined_relay(leaf)
    assert mined_request == request
    assert mined_response == response.without_payload()


async def test_the_backend_gets_the_inner_request_and_the_pocket_headers(relayer):
    await relayer.send(relayer.request(url="http://gw/base/v1//x?y=1", body=b"{}"), {"User-Agent": "ua", "X-Evil": "1"})
    ((method, path, headers, body),) = relayer.backend.requests
    assert (method, path, body) == ("POST", "/base/v1/x?y=1", b"{}")
    assert headers["Pocket-Supplier"] == address("alice")
    assert headers["Pocket-Service"] == "eth"
    assert headers["Pocket-Application"] == relayer.world.application("eth")
    assert headers["Accept-Encoding"] == "identity"
    assert (headers["Content-Type"], headers["User-Agent"], headers["X-Set"]) == ("application/json", "ua", "1")
    assert "X-Evil" not in headers


async def test_a_url_that_nobody_quoted_reaches_the_backend_quoted(relayer):
    status, _, _ = await relayer.send(relayer.request(url="http://gw/a b%2Fc/é?q=x y"))
    assert (status, relayer.backend.requests[0][1]) == (200, "/base/a%20b%2Fc/%C3%A9?q=x%20y")


async def test_rest_relays_reach_the_rest_backend_with_their_own_method(relayer):
    header = relayer.header()
    envelope = HttpRequest("GET", "http://gw/status?a=b", {}, b"")
    unsigned = RelayRequest(header, b"", address("alice"), envelope.encode())
    ring = sorted([key("gateway").public_key, key("app eth").public_key])
    signature = sign_ring(unsigned.signable_hash(), ring, key("gateway").scalar, relayer.world.chance.randbytes)
    status, _, _ = await relayer.send(replace(unsigned, signature=signature.encode()), {"Rpc-Type": "4"})
    assert status == 200
    assert relayer.backend.requests[0][:2] == ("GET", "/status?a=b")


async def test_a_client_error_of_the_backend_is_served_and_mined_a_server_error_is_neither(relayer):
    relayer.backend.answer = (404, {}, b"no")
    status, _, body = await relayer.send(relayer.request())
    assert status == 200
    assert decode_http_response(decode_relay_response(body).payload).status == 404
    relayer.backend.answer = (503, {}, b"down")
    status, headers, body = await relayer.send(relayer.request(body=b"2"))
    assert (status, headers["Content-Type"].split(";")[0]) == (503, "application/json")
    assert "error" in json.loads(body)
    assert len(await relayer.leaves()) == 1


async def test_redirects_are_passed_on_and_gzip_is_unpacked(relayer):
    relayer.backend.answer = (302, {"Location": "http://127.0.0.1:1/evil"}, b"moved")
    _, _, body = await relayer.send(relayer.request())
    assert decode_http_response(decode_relay_response(body).payload).status == 302
    relayer.backend.answer = (200, {"Content-Encoding": "gzip"}, gzip.compress(b"plain"))
    _, _, body = await relayer.send(relayer.request(body=b"2"))
    envelope = decode_http_response(decode_relay_response(body).payload)
    assert envelope.body == b"plain"
    assert "Content-Encoding" not in envelope.headers
    assert len(relayer.backend.requests) == 2


REFUSED = {
    "garbage": (lambda r: b"\xff\xff", 400),
    "empty": (lambda r: b"", 400),
    "no header": (lambda r: replace(r.request(), header=None), 400),
    "unknown service": (lambda r: replace(r.request(), header=replace(r.header(), service_id="nope")), 404),
    "no supplier": (lambda r: replace(r.request(), supplier_operator_address=""), 400),
    "foreign supplier": (lambda r: r.request(supplier=address("bob")), 503),
    "no signature": (lambda r: r.request(signature=b""), 400),
    "broken signature": (lambda r: r.request(signature=b"\x00" * 199), 403),
    "altered payload": (lambda r: replace(r.request(), payload=HttpRequest("GET", "/", {}, b"x").encode()), 403),
    "payload that is none": (lambda r: replace(r.request(), payload=b"\xff\xff\xff"), 400),
    "URL that is none": (lambda r: r.request(url="http://["), 400),
    "absurd heights": (
        lambda r: replace(r.request(), header=replace(r.header(), session_end_block_height=10**9)), 400,
    ),
    "forged end": (
        lambda r: r.request(header=replace(r.header(), session_end_block_height=9)), 403,
    ),
    "start within a session": (
        lambda r: r.request(header=replace(r.header(), session_start_block_height=2)), 403,
    ),
    # No node has committed that block yet, so nobody can say that there is no such session.
    "start that is still to come": (
        lambda r: r.request(
            header=replace(r.header(), session_start_block_height=11, session_end_block_height=20)
        ), 503,
    ),
    "forged session id": (lambda r: r.request(header=replace(r.header(), session_id="0" * 64)), 403),
    # One answer of one node: it is 403 once another node or the next block confirms it.
    "unknown application": (
        lambda r: replace(r.request(), header=replace(r.header(), application_address=address("nobody"))), 503,
    ),
    "too large": (lambda r: b"x" * 200_000, 413),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_refused_reaches_neither_backend_nor_ledger(relayer, name):
    make, expected = REFUSED[name]
    status, headers, body = await relayer.send(make(relayer))
    assert status == expected
    assert headers["Content-Type"].split(";")[0] == "application/json"
    assert json.loads(body)["error"]
    assert relayer.backend.requests == []
    assert await relayer.leaves() == []


@pytest.mark.parametrize(("rpc_type", "status"), [("9", 400), ("2", 400), ("5", 503), ("x" * 500, 400)])
async def test_a_transport_without_backend_is_never_served_by_another(relayer, rpc_type, status):
    found, _, _ = await relayer.send(relayer.request(), {"Rpc-Type": rpc_type})
    assert found == status
    assert relayer.backend.requests == []


async def test_relays_are_served_to_the_end_of_the_grace_period_and_not_after(relayer):
    header = relayer.header()
    for height, expected in ((10, 200), (11, 200), (12, 403)):
        while relayer.chain.height < height:
            relayer.chain.step()
        relayer.height[0] = height
        status, _, _ = await relayer.send(relayer.request(header=header, body=b"%d" % height))
        assert status == expected
    assert len(await relayer.leaves(header)) == 2


async def test_an_unstaked_supplier_serves_its_last_session_and_not_the_next(relayer):
    relayer.chain.unstake_supplier(address("alice"))
    assert (await relayer.send(relayer.request()))[0] == 200
    while relayer.chain.height < 11:
        relayer.chain.step()
    relayer.height[0] = 11
    following = replace(relayer.header(), session_start_block_height=11, session_end_block_height=20)
    status, _, body = await relayer.send(relayer.request(header=following))
    assert status == 503
    assert b"unstaked" in body


async def test_a_gateway_may_sign_until_the_end_of_the_session_in_which_it_was_undelegated(relayer):
    relayer.chain.undelegate(relayer.world.application("eth"), address("gateway"))
    assert (await relayer.send(relayer.request()))[0] == 200


async def confirmed():
    """Confirm the Lease."""


async def test_a_sealed_session_is_not_acknowledged(relayer):
    header = relayer.header()
    store = SealStore(relayer.redis, KEYS, address("alice"), 1)
    await store.fence(confirmed)
    await store.close({header.session_id: 10})
    status, _, body = await relayer.send(relayer.request())
    assert status == 403
    assert b"too late to claim" in body


async def test_a_relay_is_acknowledged_only_if_its_session_is_certainly_not_sealed_after_it_was_recorded(
    redis, tmp_path
):
    heights, sealed = [], [False]

    async def is_below(height):
        heights.append(height)
        return not sealed[0]

    async with relaying(redis, tmp_path, is_below=is_below) as relayer:
        assert (await relayer.send(relayer.request()))[0] == 200
        sealed[0] = True  # the relayer was stopped, and Redis lost that the session is closed
        status, _, body = await relayer.send(relayer.request())
        assert (status, b"too late to claim" in body) == (503, True)
        assert len(await relayer.leaves()) == 2, "it may be mined all the same"
    end = relayer.header().session_end_block_height
    assert set(heights) == {end + 3}, "sealed one block after the claim window opens"


async def test_a_first_relay_of_a_session_before_the_horizon_is_not_acknowledged(relayer):
    store = SealStore(relayer.redis, KEYS, address("alice"), 1)
    await store.fence(confirmed)
    end = relayer.header().session_end_block_height
    await store.advance_cutoff(end - 1, end)
    assert (await relayer.send(relayer.request()))[0] == 200
    await relayer.redis.flushdb()
    await store.fence(confirmed)
    await store.advance_cutoff(end, end)
    status, _, body = await relayer.send(relayer.request())
    assert status == 403
    assert b"too late to claim" in body
    assert await relayer.leaves() == []


async def test_a_client_that_leaves_costs_no_relay(relayer):
    """What the backend answered is recorded and charged once, and the next client is served."""
    relayer.backend.gate = asyncio.Event()
    task = asyncio.create_task(relayer.send(relayer.request()))
    await relayer.backend.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    relayer.backend.gate.set()
    assert (await relayer.send(relayer.request(body=b"2")))[0] == 200
    async with asyncio.timeout(10):
        while relayer.pipeline.in_flight.suppliers:  # noqa: ASYNC110 - the relayer's tasks go on
            await asyncio.sleep(0.01)
    await relayer.recorder.drain()
    await relayer.budgets.drain()
    assert len(await relayer.leaves()) == 2
    assert await consumed(relayer) == 200


async def test_a_slow_backend_is_cut_at_its_timeout(redis, tmp_path):
    async with relaying(redis, tmp_path, timeout_seconds=0.5) as relayer:
        relayer.backend.gate = asyncio.Event()
        status, _, body = await relayer.send(relayer.request())
        assert (status, b"no answer" in body) == (502, True)
        relayer.backend.gate.set()


async def test_health_and_readiness(relayer):
    async def get(path):
        async with relayer.http.get(relayer.url + path) as answer:
            return answer.status

    paths = ("/health", "/healthz", "/ready", "/ready/eth", "/ready/none")
    assert [await get(path) for path in paths] == [200, 200, 200, 200, 404]
    (endpoint,) = relayer.registry.get("eth").pools["rest"].endpoints
    endpoint.failed_check = "84 blocks behind"
    assert await get("/ready/eth") == 200
    relayer.registry.get("eth").pools["jsonRpc"].endpoints[0].failed_check = "the check got status 503"
    assert await get("/ready/eth") == 503
    relayer.problem[0] = "no key"
    assert await get("/ready") == 503


async def test_difficulty_thins_what_is_mined_but_not_what_is_served(redis, tmp_path):
    services = [
        {"id": "eth", "compute_units_per_relay": 100, "owner": address("owner"), "target_hash": "3f" + "ff" * 31}
    ]
    async with relaying(redis, tmp_path, services=services) as relayer:
        statuses = [(await relayer.send(relayer.request(body=b"%d" % i)))[0] for i in range(24)]
        assert statuses == [200] * 24
        mined = await relayer.leaves()
        assert 0 < len(mined) < 20


async def test_optimistic_mode_validates_beside_the_backend_and_answers_nothing_invalid(redis, tmp_path):
    async with relaying(redis, tmp_path, service={"validation": "optimistic"}) as relayer:
        assert (await relayer.send(relayer.request()))[0] == 200
        assert (await relayer.send(relayer.request(signature=b"\x00" * 199)))[0] == 403
        assert len(await relayer.leaves()) == 1


async def test_fast_recording_answers_and_still_records(redis, tmp_path):
    async with relaying(redis, tmp_path, recording=Recording.FAST) as relayer:
        assert (await relayer.send(relayer.request()))[0] == 200
        await relayer.recorder.drain()
        assert len(await relayer.leaves()) == 1


async def test_a_retry_takes_another_endpoint_and_says_so(redis, tmp_path):
    async with contextlib.AsyncExitStack() as stack:
        good = Backend()
        url = await stack.enter_async_context(listening(good.handle))
        urls = ["http://127.0.0.1:1", url]
        service = {"backends": {"jsonRpc": {"urls": urls, "strategy": "first_healthy", "unhealthyThreshold": 2}}}
        relayer = await stack.enter_async_context(relaying(redis, tmp_path, service=service))
        retries = []
        for i in range(4):
            status, headers, _ = await relayer.send(relayer.request(body=b"%d" % i))
            assert status == 200
            retries.append(headers.get("Backend-Retries"))
        assert retries == ["1", "1", None, None]


async def test_when_all_backends_are_down_the_breaker_answers_at_once(redis, tmp_path):
    service = {"backends": {"jsonRpc": {"urls": ["http://127.0.0.1:1"], "unhealthyThreshold": 1, "recoverySeconds": 0}}}
    async with relaying(redis, tmp_path, service=service) as relayer:
        assert (await relayer.send(relayer.request()))[0] == 502
        status, _, body = await relayer.send(relayer.request(body=b"2"))
        assert (status, b"unhealthy" in body) == (503, True)


async def test_answers_that_are_too_large_fail_cleanly(relayer):
    relayer.backend.answer = (200, {}, b"x" * 100_001)
    assert (await relayer.send(relayer.request()))[0] == 502
    relayer.backend.answer = (200, {"Content-Encoding": "gzip"}, gzip.compress(b"x" * 10_000_000))
    assert (await relayer.send(relayer.request(body=b"2")))[0] == 502
    assert await relayer.leaves() == []


async def test_the_chain_being_away_refuses_new_sessions_but_not_known_ones(redis, tmp_path):
    async with relaying(redis, tmp_path) as relayer:
        assert (await relayer.send(relayer.request()))[0] == 200
        while relayer.chain.height < 11:
            relayer.chain.step()
        relayer.height[0] = 11
        await relayer.nodes.aclose()
        known = relayer.header(height=10)
        assert (await relayer.send(relayer.request(header=known, body=b"2")))[0] == 200
        status, headers, body = await relayer.send(relayer.request(body=b"3"))
        assert (status, b"no chain node is available" in body) == (503, True)
        assert int(headers["Retry-After"]) >= 1
        assert len(await relayer.leaves(known)) == 2
        assert await relayer.leaves() == []


async def test_fast_recording_counts_exactly_what_was_recorded_and_what_was_not(tmp_path):
    def counted():
        write_due()
        lost = relayer_metrics.NOT_RECORDED.labels("unavailable")._value.get()
        return relayer_metrics.MINED.labels("eth")._value.get(), lost

    with running_redis() as server:
        redis = connect(server.url)
        async with relaying(redis, tmp_path, recording=Recording.FAST, record_patience=0.3) as relayer:
            mined, lost = counted()
            assert (await relayer.send(relayer.request()))[0] == 200
            await relayer.recorder.settled()
            assert counted() == (mined + 1, lost)
            request = relayer.request(body=b"2")
            server.kill()
            assert (await relayer.send(request))[0] == 200, "answered before it is recorded"
            await relayer.recorder.settled()
            assert counted() == (mined + 1, lost + 1)
        await redis.aclose()


ACCEPTING = [("gzip", True), ("deflate, gzip;q=0.5", True), ("*", True), ("GZIP", True), ("", False), ("br", False)]
ACCEPTING += [("gzip;q=0", False), ("*, gzip;q=0", False), ("gzip;q=x", False), ("identity", False)]


@pytest.mark.parametrize(("accepted", "packed"), ACCEPTING)
async def test_answers_are_compressed_when_that_is_on_and_the_gateway_accepts_it(redis, tmp_path, accepted, packed):
    wanted = ResponseCompression(enabled=True, min_bytes=500)
    async with relaying(redis, tmp_path, compression=wanted) as relayer, aiohttp.ClientSession(
        auto_decompress=False, skip_auto_headers=("Accept-Encoding",)
    ) as http:  # fmt: skip
        relayer.backend.answer = (200, {}, b"a" * 5000)
        headers = {"Accept-Encoding": accepted} if accepted else {}
        async with http.post(relayer.url, data=relayer.request().encode(), headers=headers) as answer:
            body = await answer.read()
            assert answer.headers.get("Content-Encoding") == ("gzip" if packed else None)
        response = decode_relay_response(gzip.decompress(body) if packed else body)
        assert verify_signature(key("alice").public_key, response.signable_hash(), response.supplier_operator_signature)
        assert (len(body) < 1000) == packed


async def test_small_answers_and_a_relayer_where_it_is_off_send_them_as_they_are(redis, tmp_path):
    for folder, wanted in (("a", ResponseCompression()), ("b", ResponseCompression(enabled=True, min_bytes=10**6))):
        async with relaying(redis, tmp_path / folder, compression=wanted) as relayer:
            request = relayer.request(body=folder.encode())
            _, headers, _ = await relayer.send(request, {"Accept-Encoding": "gzip"})
            assert "Content-Encoding" not in headers


async def test_a_relay_that_no_proof_could_hold_is_served_and_charged_but_not_mined(redis, tmp_path):
    async with relaying(redis, tmp_path, service={"maxBodyBytes": 5_000_000}) as relayer:
        fits = relayer.request(body=b"x" * (LARGEST_LEAF - 2000))
        assert (await relayer.send(fits))[0] == 200
        assert len(await relayer.leaves()) == 1
        name = KEYS.consumed(address("alice"), relayer.header().session_id)
        spent = await redis.get(name)
        assert spent
        large = relayer.request(body=b"y" * LARGEST_LEAF)
        status, _, body = await relayer.send(large)
        assert status == 200
        assert decode_relay_response(body).payload
        assert len(await relayer.leaves()) == 1
        assert (await relayer.send(large))[0] == 409
        await relayer.budgets.drain()
        assert int(await redis.get(name)) == 2 * int(spent), "so the session's budget limits what is served for nothing"


@pytest.mark.parametrize("method", ["TRACE", "PRI", "FOO"])
async def test_a_method_that_is_none_of_a_relay_is_405_within_and_without(relayer, method):
    envelope = HttpRequest(method, "http://gw/x", {}, b"").encode()
    request = relayer.world.signed(replace(relayer.request(), payload=envelope))
    status, headers, _ = await relayer.send(request)
    assert (status, "POST" in headers["Allow"]) == (405, True)
    parts = urlsplit(relayer.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    body = relayer.request().encode()
    writer.write(b"%s / HTTP/1.1\r\nHost: a:1\r\nContent-Length: %d\r\n\r\n%s" % (method.encode(), len(body), body))
    # What the parser does not know as a method of HTTP/1.1 never comes further than it.
    assert (await reader.readline()).split()[1] == (b"405" if method == "TRACE" else b"400")
    writer.close()
    await writer.wait_closed()
    assert relayer.backend.requests == []
    assert await relayer.leaves() == []


async def test_the_public_port_says_whether_and_how_many_and_nothing_of_where(redis, tmp_path):
    url = "http://node.internal:1/v2/HIDDEN-KEY?apikey=HIDDEN-VALUE"
    async with relaying(redis, tmp_path, backends={"rest": {"urls": [url], "unhealthyThreshold": 1}}) as relayer:
        await relayer.send(relayer.request(), {"Rpc-Type": "4"})
        told = b""
        for path in ("/health", "/ready", "/ready/eth", "/ready/none", "/ready/%2e%2e"):
            async with relayer.http.get(relayer.url + path) as answer:
                told += await answer.read() + repr(dict(answer.headers)).encode()
        for secret in (b"HIDDEN", b"internal", b"127.0.0.1", b"/base"):
            assert secret not in told
        (row,) = relayer.registry.unhealthy_endpoints()
        assert row["endpoint"] == "http://node.internal:1"
        assert (row["service"], row["transport"]) == ("eth", "rest")
        async with relayer.http.get(relayer.url + "/ready/eth") as answer:
            assert await answer.json() == {
                "service_id": "eth", "ready": True, "block_height": 1, "backends": {"total": 2, "healthy": 1},
            }  # fmt: skip
