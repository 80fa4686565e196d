"""Simulated relays over every transport: served and signed, never charged, mined or counted."""

import asyncio
import itertools
import random
import time
from dataclasses import replace

import aiohttp
import pytest
import yaml
from click.testing import CliRunner
from prometheus_client import REGISTRY

from callers import TRANSPORTS
from pocket.api.simulation import Simulation
from pocket.protocol.crypto.ecdsa import verify_signature, verify_signature_by_address
from pocket.protocol.crypto.ring import sign_ring
from pocket.protocol.relays.envelope import HttpRequest
from pocket.protocol.relays.messages import RelayRequest, decode_relay_response
from pocket.protocol.relays.simulated import simulated_header
from pocket.redis_store.connection import connect
from relayctl.main import main
from relays import NOW
from resources import changed, relay_miner, supplier
from servers import running_redis
from transports import all_transports, connected, consumed
from world import address, key

pytestmark = pytest.mark.redis
HEADERS = {"Pocket-Simulation-Key-Id": "canary"}
LABEL = {"http1": "http", "http2": "http", "grpc": "grpc", "grpc_web": "grpc_web", "websocket": "websocket"}
_NONCES = itertools.count(1)
_CHANCE = random.Random(11)


def simulation(**fields):
    identity = {
        "keyId": "canary",
        "applicationPublicKey": key("sim app").public_key.hex(),
        "gatewayPublicKeys": [key("sim gateway").public_key.hex()],
        "maxPerSecond": 1000,
    } | fields.pop("identity", {})
    return Simulation.model_validate({"enabled": True, "identities": [identity]} | fields)


def simulated(transport, *, at=NOW, signer="sim gateway", service="eth", supplier="alice", app="sim app"):
    header = simulated_header(key(app).public_key, service, int(at), next(_NONCES).to_bytes(16, "big"))
    payload = b"ping"
    if transport != "websocket":
        payload = HttpRequest("POST", "http://x/", {"Content-Type": ("application/json",)}, b'{"id":1}').encode()
    unsigned = RelayRequest(header, b"", address(supplier), payload)
    ring = sorted([key("sim app").public_key, key(signer).public_key])
    signature = sign_ring(unsigned.signable_hash(), ring, key(signer).scalar, _CHANCE.randbytes)
    return replace(unsigned, signature=signature.encode())


def counted():
    """Return all counts of real relays, including latencies."""
    real = [f"pocket_relayer_{name}" for name in ("relays_", "relay_seconds", "backend_seconds")]
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if any(sample.name.startswith(name) for name in real) and not sample.name.endswith("_created")
    }


def results(transport, result):
    name = "pocket_relayer_simulated_relays_total"
    return sum(
        sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name == name and (sample.labels["transport"], sample.labels["result"]) == (LABEL[transport], result)
    )


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_simulated_relay_is_served_and_signed_and_leaves_no_trace_but_its_own_metric(
    redis, tmp_path, transport
):
    async with all_transports(redis, tmp_path, simulation=simulation()) as (relayer, _):
        asked = relayer.chain.state.height
        before, served = counted(), results(transport, "served")
        for _ in range(3):
            outcome = await TRANSPORTS[transport](relayer.url, simulated(transport).encode(), HEADERS)
            response = decode_relay_response(outcome.body)
            assert verify_signature(
                key("alice").public_key, response.signable_hash(), response.supplier_operator_signature
            )
        assert results(transport, "served") == served + 3
        assert counted() == before
        names = [name.decode() async for name in redis.scan_iter("relayer-test:*")]
        assert {name.split(":")[1] for name in names} == {"simulated"}
        assert asked == relayer.chain.state.height
        real = relayer.request() if transport != "websocket" else relayer.world.signed(
            replace(relayer.request(), payload=b"ping"))  # fmt: skip
        assert (await TRANSPORTS[transport](relayer.url, real.encode())).body
        assert len(await relayer.leaves()) == 1
        assert await consumed(relayer) == 100


def of_a_stranger(transport):
    return simulated(transport, signer="nobody")


def too_old(transport):
    return simulated(transport, at=NOW - 30)


def from_the_future(transport):
    return simulated(transport, at=NOW + 30)


def of_another_application(transport):
    return simulated(transport, app="other app")


def of_a_real_session(transport):
    request = simulated(transport)
    return replace(request, header=replace(request.header, session_id="0" * 64))


def of_no_supplier_here(transport):
    return simulated(transport, supplier="bob")


REFUSED = {
    of_a_stranger: ("simulation_refused", 403, 7, 4001),
    too_old: ("simulation_refused", 403, 7, 4001),
    from_the_future: ("simulation_refused", 403, 7, 4001),
    of_another_application: ("simulation_refused", 403, 7, 4001),
    of_a_real_session: ("invalid_request", 400, 3, 4001),
    of_no_supplier_here: ("supplier_not_found", 503, 9, 4001),
}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
async def test_what_is_not_proven_by_the_pinned_ring_never_reaches_a_backend_even_when_optimistic(
    redis, tmp_path, transport, make
):
    reason, http, grpc, close = REFUSED[make]
    options = {"simulation": simulation(), "service": {"validation": "optimistic"}}
    async with all_transports(redis, tmp_path, **options) as (relayer, sockets):
        before, refused = counted(), results(transport, reason)
        outcome = await TRANSPORTS[transport](relayer.url, make(transport).encode(), HEADERS)
        assert outcome.code == {"http": http, "websocket": close}.get(LABEL[transport], grpc), outcome
        assert results(transport, reason) == refused + 1
        assert counted() == before
        assert (relayer.backend.requests, sockets.frames) == ([], [])


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_captured_simulated_relay_is_refused_by_whoever_gets_it_next(redis, tmp_path, transport):
    async with (
        all_transports(redis, tmp_path / "one", simulation=simulation()) as (first, _),
        all_transports(redis, tmp_path / "two", simulation=simulation()) as (second, sockets),
    ):
        body = simulated(transport).encode()
        assert (await TRANSPORTS[transport](first.url, body, HEADERS)).body
        outcome = await TRANSPORTS[transport](second.url, body, HEADERS)
        assert outcome.code == {"http": 409, "websocket": 4001}.get(LABEL[transport], 6)
        assert (second.backend.requests, sockets.frames) == ([], [])


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_while_simulation_is_off_the_header_means_nothing(redis, tmp_path, transport):
    off = simulation(enabled=False)
    async with all_transports(redis, tmp_path, simulation=off) as (relayer, _):
        request = relayer.request()
        if transport == "websocket":
            request = relayer.world.signed(replace(request, payload=b"ping"))
        assert (await TRANSPORTS[transport](relayer.url, request.encode(), HEADERS)).body
        assert len(await relayer.leaves()) == 1
        refused = await TRANSPORTS[transport](relayer.url, simulated(transport).encode(), HEADERS)
        assert not refused.body


async def test_an_identity_has_a_rate_that_strangers_cannot_use_up(redis, tmp_path):
    config = simulation(identity={"maxPerSecond": 1})
    async with all_transports(redis, tmp_path, simulation=config) as (relayer, _):
        for _ in range(3):
            assert (await relayer.send(of_a_stranger("http1"), HEADERS))[0] == 403
        assert (await relayer.send(simulated("http1"), HEADERS))[0] == 200
        assert (await relayer.send(simulated("http1"), HEADERS))[0] == 429


async def test_simulated_relays_at_once_are_bounded_and_real_ones_pass_by(redis, tmp_path):
    async with all_transports(redis, tmp_path, simulation=simulation(maxConcurrent=1)) as (relayer, _):
        relayer.backend.gate = asyncio.Event()
        running = asyncio.create_task(relayer.send(simulated("http1"), HEADERS))
        await relayer.backend.asked.wait()
        assert (await relayer.send(simulated("http1"), HEADERS))[0] == 429
        real = asyncio.create_task(relayer.send(relayer.request()))
        relayer.backend.gate.set()
        assert (await running)[0] == (await real)[0] == 200
        assert (await relayer.send(simulated("http1"), HEADERS))[0] == 200


@pytest.mark.parametrize("named", ["canary", "unknown"])
async def test_connections_without_an_authenticated_relay_use_up_no_simulated_relays(redis, tmp_path, named):
    async with (
        all_transports(redis, tmp_path, simulation=simulation(maxConcurrent=1)) as (relayer, _),
        connected(relayer, **{"Pocket-Simulation-Key-Id": named}),
    ):
        assert (await relayer.send(simulated("http1"), HEADERS))[0] == 200


async def test_simulated_connections_are_bounded_from_their_first_relay_on(redis, tmp_path):
    async with all_transports(redis, tmp_path, simulation=simulation(maxConcurrent=1)) as (relayer, _):
        async with connected(relayer, **HEADERS) as socket:
            for _ in range(2):
                await socket.send_bytes(simulated("websocket").encode())
                assert (await socket.receive(5)).type is aiohttp.WSMsgType.BINARY
            assert (await relayer.send(simulated("http1"), HEADERS))[0] == 429
        assert (await relayer.send(simulated("http1"), HEADERS))[0] == 200


async def test_an_unknown_simulation_key_does_not_replace_an_enforced_handshake(redis, tmp_path):
    config = simulation()
    async with all_transports(redis, tmp_path, simulation=config, enforce_handshake=True) as (relayer, _):
        forged = {
            "Pocket-Simulation-Key-Id": "unknown", "Pocket-Signature": "AAAA", "App-Address": "nobody",
            "Pocket-Session-Start-Height": "1", "Pocket-Session-End-Height": "10",
        }  # fmt: skip
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            async with connected(relayer, **forged):
                pass
        assert caught.value.status in (400, 403, 503), "no chain node knows this session"


@pytest.mark.parametrize(
    "identity", [{"enabled": False}, {"notAfter": "2020-01-01T00:00:00Z"}, {"services": ["base"]}, {"keyId": "other"}]
)
async def test_an_identity_that_is_off_expired_unknown_or_for_another_service_is_refused(redis, tmp_path, identity):
    spare = {
        "keyId": "spare",
        "applicationPublicKey": key("sim app").public_key.hex(),
        "gatewayPublicKeys": [key("g").public_key.hex()],
    }
    config = simulation()
    rows = [config.identities[0].model_dump(by_alias=True) | identity, spare]
    config = Simulation.model_validate({"enabled": True, "identities": rows})
    async with all_transports(redis, tmp_path, simulation=config) as (relayer, _):
        assert (await relayer.send(simulated("http1"), HEADERS))[0] == 403
        assert relayer.backend.requests == []


async def test_without_redis_a_simulated_relay_is_refused_since_nobody_knows_of_replays(tmp_path):
    with running_redis() as server:
        redis = connect(server.url)
        async with all_transports(redis, tmp_path, simulation=simulation()) as (relayer, _):
            server.kill()
            status, _, body = await relayer.send(simulated("http1"), HEADERS)
            assert (status, b"Redis" in body) == (503, True)
            assert relayer.backend.requests == []
        await redis.aclose()


def manifest_files(folder, relayer, **identity):
    config = simulation(identity=identity).model_dump(by_alias=True, exclude_none=True, mode="json")
    urls = [relayer.backend.url]
    service = {"id": "eth", "backends": {"jsonRpc": {"urls": urls}, "rest": {"urls": urls}}}
    service["backends"]["webSocket"] = {"urls": ["ws://127.0.0.1:1"]}
    miner = changed(changed(relay_miner("ns"), "spec.relayer", {"simulation": config}), "spec.services", [service])
    one = changed(supplier("ns"), "spec.operatorAddress", address("alice"))
    (folder / "all.yaml").write_text(yaml.safe_dump_all([miner, one]))
    (folder / "key").write_text(f"{key('sim gateway').scalar:064x}")
    return [str(folder / "all.yaml"), "--key-id", "canary", "--key-file", str(folder / "key"), "--url", relayer.url]


async def test_the_probe_asks_every_supplier_service_and_transport_and_fails_when_one_does(redis, tmp_path):
    async with all_transports(redis, tmp_path, simulation=simulation(), wall_clock=time.time) as (relayer, _):
        arguments = ["relay", "probe", *manifest_files(tmp_path, relayer)]
        told = await asyncio.to_thread(CliRunner().invoke, main, arguments)
        assert "3 of 3 probes were served." in told.output, told.output
        assert told.exit_code == 0
        relayer.backend.answer = (500, {}, b"broken")
        told = await asyncio.to_thread(CliRunner().invoke, main, [*arguments, "--json"])
        assert told.exit_code == 1
        assert told.output.count('"problem": ""') == 1
        assert await relayer.leaves() == []
        arguments[arguments.index("canary")] = "nobody"
        told = await asyncio.to_thread(CliRunner().invoke, main, arguments)
        assert "no RelayMiner in these files pins nobody" in told.output


def test_a_signature_is_recognised_by_the_signers_address():
    signature = key("alice").sign(b"message")
    assert verify_signature_by_address(address("alice"), b"message", signature)
    assert not verify_signature_by_address(address("alice"), b"another", signature)
    assert not verify_signature_by_address(address("bob"), b"message", signature)
    assert not verify_signature_by_address(address("alice"), b"message", signature[:63])
    assert not verify_signature_by_address(address("alice"), b"message", b"\xff" * 64)


async def test_a_simulated_connection_ends_by_itself(redis, tmp_path, monkeypatch):
    monkeypatch.setattr("pocket_relayer.transports.websocket.CONNECTION_SECONDS", 0.1)
    async with (
        all_transports(redis, tmp_path, simulation=simulation()) as (relayer, _),
        aiohttp.ClientSession() as http,
        http.ws_connect(relayer.url, headers={"Target-Service-Id": "eth", **HEADERS}) as socket,
    ):
        message = await socket.receive(10)
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1000)
