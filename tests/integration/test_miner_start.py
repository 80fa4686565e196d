"""A miner that starts while what it needs is away: it answers probes, says what it waits for, and goes on by itself."""

import asyncio
import contextlib

import aiohttp
import pytest

from one_miner import a_miner, codes, until
from pocket.errors import ConfigurationError
from pocket_localnet.local_chain import LocalChain
from pocket_localnet.server import serve
from pocket_miner.process import miner_process
from pocket_miner.storage import volume
from relayctl.local_ports import free_port
from servers import RedisServer
from world import World

pytestmark = pytest.mark.redis


@contextlib.asynccontextmanager
async def a_node():
    async with serve(LocalChain(World().genesis())) as localnet:
        yield {"grpc": localnet.grpc_url, "rpc": localnet.rpc_url}


async def test_a_miner_without_redis_answers_its_probes_and_mines_once_redis_is_there(tmp_path):
    (tmp_path / "redis").mkdir()
    server = RedisServer(tmp_path / "redis")
    async with a_node() as node, a_miner(tmp_path, server.url, node) as (ask, task):
        status, health = await until(ask, "/health", lambda _, body: body["phase"] == "waiting")
        assert (status, health["status"]) == (200, "ok")
        _, ready = await until(ask, "/ready", lambda _, body: "RedisUnavailable" in codes(body))
        assert not ready["ready"]
        assert ready["problem"].startswith(f"waiting for Redis: {server.url}: Redis does not answer")
        _, report = await ask("/report")
        assert report["redis"].startswith(server.url)
        assert codes(report) == ["RedisUnavailable", "Starting"]
        server.start()
        try:
            await until(ask, "/ready", lambda status, _: status == 200)
            assert (await ask("/health"))[1]["phase"] == "mining"
            _, report = await until(ask, "/report", lambda _, body: body["owned"])
            assert (report["problems"], report["redis"]) == ([], "")
            assert not task.done()
        finally:
            server.kill()


async def test_a_miner_without_a_chain_node_answers_its_probes(tmp_path, redis_process):
    nowhere = free_port()
    node = {"grpc": f"grpc://127.0.0.1:{nowhere}", "rpc": f"http://127.0.0.1:{nowhere}"}
    async with a_miner(tmp_path, redis_process.url, node) as (ask, task):
        status, ready = await until(ask, "/ready", lambda _, body: "ChainUnavailable" in codes(body))
        assert status == 503
        assert ready["problem"].startswith("waiting for a chain node: ")
        assert (await ask("/health"))[0] == 200
        assert not task.done()


async def test_a_miner_that_waits_ends_when_it_is_told_to(tmp_path):
    nowhere = free_port()
    node = {"grpc": f"grpc://127.0.0.1:{nowhere}", "rpc": f"http://127.0.0.1:{nowhere}"}
    async with a_miner(tmp_path, f"redis://127.0.0.1:{nowhere}/0", node) as (ask, task):
        await until(ask, "/health", lambda _, body: body["phase"] == "waiting")
    assert task.done()
    assert task.exception() is None


async def test_a_node_of_another_chain_still_ends_the_miner(tmp_path, redis_process):
    async with a_node() as node, a_miner(tmp_path, redis_process.url, node, chain_id="other") as (_, task):
        await asyncio.wait({task}, timeout=20)
        assert task.exception().subgroup(ConfigurationError) is not None


async def test_a_miner_whose_volume_takes_long_to_be_looked_at_answers_probes_and_tells_peers_nothing(
    tmp_path, redis_process, monkeypatch
):
    looking, look_on = asyncio.Event(), asyncio.Event()
    original = miner_process.opened

    @contextlib.asynccontextmanager
    async def slowly(*arguments):
        looking.set()
        await look_on.wait()
        async with original(*arguments) as found:
            yield found

    monkeypatch.setattr(miner_process, "opened", slowly)
    async with a_node() as node, a_miner(tmp_path, redis_process.url, node) as (ask, _):
        await asyncio.wait_for(looking.wait(), 20)
        assert (await ask("/health"))[1] == {"status": "ok", "phase": "opening", "height": 0, "role": "standby"}
        assert (await ask("/ready"))[1]["problem"] == "starting: opening"
        for path in ("/report", "/status"):
            assert (await ask(path))[0] == 200
        with pytest.raises(aiohttp.ContentTypeError, match="503"):
            await ask("/peer/sessions?supplier=pokt1x")
        look_on.set()
        await until(ask, "/ready", lambda status, _: status == 200)
        assert await ask("/peer/sessions?supplier=pokt1x") == (200, [])


async def test_a_folder_has_one_miner(tmp_path):
    async with volume.owned(tmp_path):
        with pytest.raises(ConfigurationError, match="held by process"):
            volume.lock(tmp_path)


async def test_a_miner_on_all_addresses_serves_no_relays_to_peers(tmp_path, redis_process):
    async with a_node() as node, a_miner(tmp_path, redis_process.url, node, admin_host="0.0.0.0") as (ask, _):
        await until(ask, "/ready", lambda status, _: status == 200)
        for path in ("sessions", "seals", "relays", "outcome"):
            with pytest.raises(aiohttp.ContentTypeError, match="404"):
                await ask(f"/peer/{path}?supplier=pokt1x")
