"""Measure the CPU of one HTTP relay, stage by stage, in one process.

`python -m benchmarks.stages` needs a redis-server. Stages that wait (Redis, backend, client) count the CPU that this
process spends on them, not the waiting.
"""

import asyncio
import hashlib
import json
import random
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Histogram

from benchmarks.parts import best, key
from pocket.api.services import ServiceSpec
from pocket.protocol.crypto.addresses import address_of
from pocket.protocol.crypto.ring import sign_ring, verify_ring_signature
from pocket.protocol.relays.envelope import HttpRequest, HttpResponse, decode_http_request
from pocket.protocol.relays.messages import RelayRequest, SessionHeader, decode_relay_request, relay_hash
from pocket.protocol.relays.wire import bytes_field
from pocket.redis_store.budgets import Budgets, Charge
from pocket.redis_store.connection import connect
from pocket.redis_store.log_records import WalRecord
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.relay_recorder import RelayRecorder
from pocket.redis_store.write_ahead_log import WriteAheadLog
from pocket_operator.resources.trial_redis import REDIS_OPTIONS
from pocket_relayer.backends.service import ServiceBackends
from pocket_relayer.pipeline.signing import signed_payload
from relayctl.local_ports import free_port
from relayctl.local_process import Process
from relayctl.local_redis import redis_server

HEADERS = {"Content-Type": ("application/json",)}
CALL = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "eth_blockNumber", "params": []}).encode()
ANSWER = HttpResponse(200, {**HEADERS, "Server": ("node",)}, b'{"jsonrpc":"2.0","id":1,"result":"0x10d4f"}')


def request() -> RelayRequest:
    """Return a relay request as gateways send it, signed by a ring of two."""
    header = SessionHeader(address_of(key("app").public_key), "eth", "ab" * 32, 11, 20)
    payload = HttpRequest("POST", "http://relayer:8080/", HEADERS, CALL).encode()
    unsigned = RelayRequest(header, b"", address_of(key("supplier").public_key), payload)
    members = [key("app").public_key, key("gateway").public_key]
    signature = sign_ring(unsigned.signable_hash(), members, key("app").scalar, random.Random(1).randbytes)
    return RelayRequest(header, signature.encode(), unsigned.supplier_operator_address, payload)


def pure() -> dict[str, float]:
    """Stages that only compute, CPU seconds each."""
    relay = request()
    body, signer = relay.encode(), key("supplier")
    if relay.header is None:
        raise RuntimeError("the relay has a header")
    header = relay.header
    expected = frozenset({key("app").public_key, key("gateway").public_key})
    response = signed_payload(header, ANSWER.encode(), signer)
    registry = CollectorRegistry()
    counter = Counter("c", "c", ["a", "b"], registry=registry)
    histogram = Histogram("h", "h", ["a"], registry=registry)

    def observed() -> None:
        for _ in range(4):
            counter.labels("eth", "jsonRpc").inc()
        for _ in range(2):
            histogram.labels("eth").observe(0.01)

    def mined() -> bytes:
        return relay_hash(bytes_field(1, relay.encode()) + bytes_field(2, response.without_payload().encode()))

    return {
        "decode request and envelope": best(lambda: decode_http_request(decode_relay_request(body).payload), 2000),
        "basic checks and signable hash": best(lambda: (relay.problem(), relay.signable_hash()), 2000),
        "verify the ring of 2": best(
            lambda: verify_ring_signature(relay.signable_hash(), relay.signature, expected), 300
        ),
        "sign and encode the response": best(lambda: signed_payload(header, ANSWER.encode(), signer).encode(), 1000),
        "encode and hash the leaf": best(mined, 2000),
        "metrics": best(observed, 1000),
    }


async def _each(action: Callable[[int], Awaitable[object]], number: int, together: int) -> float:
    """CPU seconds of this process per call, `together` of them at a time."""
    found = []
    for repeat in range(3):
        begun = time.process_time()
        for start in range(0, number, together):
            await asyncio.gather(*(action(repeat * number + start + n) for n in range(together)))
        found.append((time.process_time() - begun) / number)
    return min(found)


async def waiting(redis_url: str, folder: Path, together: int = 32) -> dict[str, float]:
    """Return the cost of the stages with I/O."""
    redis, keys, relay = connect(redis_url), RedisKeys("stages"), request()
    log = WriteAheadLog(folder, "stages")
    budgets, publisher = Budgets(redis, keys), RelayRecorder(redis, keys, log)
    loops = [asyncio.create_task(budgets.run()), asyncio.create_task(publisher.run())]
    supplier, header = relay.supplier_operator_address, b"h" * 100

    async def charged(number: int) -> object:
        identity = hashlib.sha256(number.to_bytes(8, "big")).digest()[:16]
        return await budgets.charge(Charge(supplier, "s", 1, 10**12, 600, identity))

    async def recorded(number: int) -> None:
        await publisher.submit(WalRecord(supplier, "s", header, number.to_bytes(8, "big") * 100))

    async def answered(_: web.Request) -> web.Response:
        return web.Response(body=ANSWER.body, content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answered)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    service = ServiceSpec.model_validate({"id": "eth", "backends": {"jsonRpc": {"urls": [url]}}})
    backends = ServiceBackends(service, time.monotonic)
    envelope = decode_http_request(relay.payload)
    try:
        both = await _each(lambda _: backends.forward("jsonRpc", envelope, {}, {}), 1920, together)
        return {
            "budget and replay guard": await _each(charged, 1920, together),
            "local log and ledger": await _each(recorded, 1920, together),
            "HTTP client and a minimal aiohttp server together": both,
        }
    finally:
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await backends.close()
        await runner.cleanup()
        await redis.aclose()
        log.close()


def main() -> None:
    """Print the milliseconds of CPU per relay."""
    found = pure()
    with tempfile.TemporaryDirectory() as name:
        port = free_port()
        command = [redis_server(), "--port", str(port), "--dir", name, *REDIS_OPTIONS]
        server = Process("redis", command, Path(name) / "redis.log")
        server.start()
        try:
            found |= asyncio.run(waiting(f"redis://127.0.0.1:{port}/0", Path(name) / "log"))
        finally:
            server.stop()
    for what, seconds in found.items():
        print(f"{seconds * 1000:7.3f} ms  {what}")
    print(f"{sum(found.values()) * 1000:7.3f} ms  all of these")


if __name__ == "__main__":
    main()
