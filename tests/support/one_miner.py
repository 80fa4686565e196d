"""The whole miner of a folder in the test's own process, and what its port answers."""

import asyncio
import contextlib

import aiohttp

from pocket.api.workload import MinerConfig
from pocket_miner.process.miner_process import MinerProcess
from relayctl.local_ports import free_port
from world import key


def codes(body):
    return [problem["code"] for problem in body["problems"]]


@contextlib.asynccontextmanager
async def a_miner(folder, redis_url, node, chain_id="pocket", admin_host="127.0.0.1"):
    """Start a miner on a folder, with a client of its port."""
    keys = folder / "keys"
    keys.mkdir()
    (keys / "alice").write_text(f"{key('alice').scalar:064x}")
    port = free_port()
    config = MinerConfig.model_validate(
        {
            "name": "trial", "namespace": "default", "prefix": "start", "redisUrl": redis_url,
            "dataDir": folder / "data", "keysDir": keys, "checkEndpoints": False,
            "chain": {"id": chain_id, "nodes": [node], "blockSeconds": 1}, "adminHost": admin_host, "adminPort": port,
        }
    )  # fmt: skip
    miner = MinerProcess(config)
    async with aiohttp.ClientSession() as http:

        async def ask(path):
            with contextlib.suppress(aiohttp.ClientConnectionError):
                async with http.get(f"http://127.0.0.1:{port}{path}") as answer:
                    return answer.status, await answer.json()
            return None, {}

        task = asyncio.create_task(miner.run())
        try:
            yield ask, task
        finally:
            miner._stop.set()
            with contextlib.suppress(Exception):
                await asyncio.wait_for(task, 20)


async def until(ask, path, wanted):
    """Query until an answer is as wanted and return it."""
    async with asyncio.timeout(30):
        while True:
            status, body = await ask(path)
            if status is not None and wanted(status, body):
                return status, body
            await asyncio.sleep(0.02)
