"""A relayer that starts while what it needs is away: it answers probes, says what it waits for, and then serves."""

import asyncio
import contextlib
import json
import sys

import aiohttp
import pytest

from pocket_localnet.local_chain import LocalChain
from pocket_localnet.server import serve
from relayctl.local_ports import free_port
from servers import RedisServer
from world import World, key

pytestmark = [pytest.mark.processes, pytest.mark.redis]


@contextlib.asynccontextmanager
async def a_relayer(folder, redis_url, node):
    """Run the real program with one worker and a client of its admin port."""
    (folder / "keys").mkdir()
    (folder / "keys" / "alice").write_text(f"{key('alice').scalar:064x}")
    hot = {"services": [{"id": "eth", "backends": {"jsonRpc": {"urls": ["http://127.0.0.1:1"]}}}]}
    (folder / "hot.json").write_text(json.dumps(hot))
    admin = free_port()
    config = {
        "name": "trial", "namespace": "default", "prefix": "start", "redisUrl": redis_url,
        "dataDir": str(folder / "data"), "keysDir": str(folder / "keys"), "hotFile": str(folder / "hot.json"),
        "chain": {"id": "pocket", "nodes": [node], "blockSeconds": 1}, "adminHost": "127.0.0.1", "adminPort": admin,
        "host": "127.0.0.1", "port": free_port(), "workers": 1,
    }  # fmt: skip
    (folder / "relayer.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "pocket_relayer", "--config", str(folder / "relayer.json")]
    with (folder / "log").open("wb") as log:
        child = await asyncio.create_subprocess_exec(*command, stderr=log)

    async def until(path, wanted):
        async with aiohttp.ClientSession() as http, asyncio.timeout(40):
            while True:
                with contextlib.suppress(aiohttp.ClientConnectionError):
                    async with http.get(f"http://127.0.0.1:{admin}{path}") as answer:
                        body = await answer.json()
                        if wanted(answer.status, body):
                            return body
                await asyncio.sleep(0.05)

    try:
        yield until, child
    finally:
        if child.returncode is None:
            child.terminate()
        await child.wait()


def codes(body):
    return [problem["code"] for problem in body["problems"]]


async def test_a_relayer_without_redis_and_chain_says_so_answers_probes_and_serves_once_they_are_there(tmp_path):
    (tmp_path / "redis").mkdir()
    server, rpc, grpc = RedisServer(tmp_path / "redis"), free_port(), free_port()
    node = {"grpc": f"grpc://127.0.0.1:{grpc}", "rpc": f"http://127.0.0.1:{rpc}"}
    async with a_relayer(tmp_path, server.url, node) as (until, child):
        ready = await until("/ready", lambda _, body: codes(body) == ["ChainUnavailable", "RedisUnavailable"])
        assert not ready["ready"]
        texts = [problem["message"] for problem in ready["problems"]]
        assert texts[0].startswith("waiting for a chain node: ")
        assert texts[1].startswith(f"waiting for Redis: {server.url}: Redis does not answer")
        health = await until("/health", lambda status, _: status == 200)
        assert (health["status"], health["restarts"]) == ("ok", 0)
        report = await until("/report", lambda status, _: status == 200)
        assert (report["complete"], report["keys"]) == (False, "")
        server.start()
        try:
            await until("/ready", lambda _, body: codes(body) == ["ChainUnavailable"])
            async with serve(LocalChain(World().genesis()), grpc_port=grpc, rpc_port=rpc):
                await until("/ready", lambda status, _: status == 200)
                report = await until("/report", lambda _, body: body["complete"])
                assert (report["problems"], report["restarts"]) == ([], 0)
                assert child.returncode is None
        finally:
            server.kill()


async def test_a_relayer_that_waits_ends_when_it_is_told_to(tmp_path):
    nowhere = free_port()
    node = {"grpc": f"grpc://127.0.0.1:{nowhere}", "rpc": f"http://127.0.0.1:{nowhere}"}
    async with a_relayer(tmp_path, f"redis://127.0.0.1:{nowhere}/0", node) as (until, child):
        await until("/ready", lambda _, body: "RedisUnavailable" in codes(body))
        child.terminate()
        assert await asyncio.wait_for(child.wait(), 20) == 0
