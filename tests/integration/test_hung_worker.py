"""One of a relayer's two workers is stopped: it is seen, said, killed and replaced, and nothing it answered is lost."""

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import aiohttp
import pytest
import yaml

from pocket.api.manifests import load_manifests
from pocket.chain.client import ChainClient
from pocket.chain.failover import NodeAddress
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket.redis_store.connection import connect
from relayctl.gateway import Gateway, json_rpc_envelope
from relayctl.local_stack import LocalStack

SAMPLES = Path(__file__).resolve().parents[2] / "manifests/samples/trial"
pytestmark = [pytest.mark.processes, pytest.mark.redis, pytest.mark.timeout(120)]


@pytest.fixture
def stack(tmp_path):
    genesis = yaml.safe_load((SAMPLES / "genesis.yaml").read_text())
    genesis["shared_params"]["num_blocks_per_session"] = 200
    (tmp_path / "genesis.yaml").write_text(yaml.safe_dump(genesis))
    resource = yaml.safe_load((SAMPLES / "relayminer.yaml").read_text())
    resource["spec"].setdefault("relayer", {})["hungWorkerSeconds"] = 5
    (tmp_path / "relayminer.yaml").write_text(yaml.safe_dump(resource))
    manifests = load_manifests([tmp_path / "relayminer.yaml", SAMPLES / "suppliers.yaml"])
    made = LocalStack(tmp_path / "stack", manifests, tmp_path / "genesis.yaml")
    try:
        made.start()
        yield made
    finally:
        made.stop()


def told(stack, path):
    try:
        with urlopen(stack.url("relayer-admin") + path, timeout=10) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


async def until(stack, path, wanted):
    async with asyncio.timeout(40):
        while True:
            status, body = await asyncio.to_thread(told, stack, path)
            if wanted(status, body):
                return body
            await asyncio.sleep(0.1)


async def relays(stack, signer, address, numbers):
    """Send relays, each on its own connection, and return how many were answered."""

    async def one(number):
        body = b'{"jsonrpc":"2.0","id":%d,"method":"m"}' % number
        request = signer.sign(address, json_rpc_envelope(stack.url("relayer") + "/", body))
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as http,
                http.post(stack.url("relayer"), data=request.encode()) as answer,
            ):
                return answer.status == 200
        return False

    return sum(await asyncio.gather(*(one(number) for number in numbers)))


async def recorded(stack):
    redis = connect(stack.redis.url)
    found = set()
    async for name in redis.scan_iter("pocket-trial-trial:relays:*"):
        found |= {fields[b"r"] for _, fields in await redis.xrange(name)}
    await redis.aclose()
    return len(found)  # what the killed worker's log held was appended again: one leaf


@pytest.mark.long
async def test_a_stopped_worker_is_told_killed_and_replaced_and_no_answered_relay_is_lost(stack):
    file = yaml.safe_load((SAMPLES / "gateway.yaml").read_text())
    node = NodeAddress.parse(f"grpc://127.0.0.1:{stack.ports['grpc']}", stack.url("rpc"))
    async with aiohttp.ClientSession() as http, ChainClient([node]) as chain:
        gateway = Gateway(chain, http, PrivateKey.from_hex(file["key"]))
        signer = await gateway.signer(file["applications"]["eth"], "eth")
        address = min(signer.session.supplier_addresses)
        health = await until(stack, "/health", lambda _, body: len(body["processes"]) == 2)
        await until(stack, "/report", lambda _, body: body["complete"])
        assert (health["status"], health["hung"]) == ("ok", [])
        assert await relays(stack, signer, address, range(16)) == 16
        stopped = health["processes"]["1"]
        os.kill(stopped, signal.SIGSTOP)
        ready = await until(stack, "/ready", lambda status, _: status == 503)
        assert [problem["code"] for problem in ready["problems"]] == ["WorkerHung"]
        assert ready["problem"].startswith(f"worker 1 (process {stopped}) does not respond")
        status, report = await asyncio.to_thread(told, stack, "/report")
        assert status == 200
        assert "WorkerHung" in [problem["code"] for problem in report["problems"]]
        assert not report["complete"]
        status, health = await asyncio.to_thread(told, stack, "/health")
        assert (status, health["status"], health["hung"]) == (200, "degraded", [1])
        health = await until(stack, "/health", lambda _, body: body["processes"].get("1", stopped) != stopped)
        assert (health["status"], health["restarts"]) == ("ok", 1)
        with pytest.raises(ProcessLookupError):
            os.kill(stopped, 0)
        await until(stack, "/report", lambda _, body: body["complete"] and not body["problems"])
        assert (await asyncio.to_thread(told, stack, "/ready"))[0] == 200
        assert await relays(stack, signer, address, range(100, 132)) == 32
    assert await recorded(stack) == 48
    assert sorted(path.parent.name.split("-")[1] for path in (stack.folder / "data").rglob("relay-log/*/lock")) == [
        "0",
        "1",
    ], "the log of the killed worker was adopted"
