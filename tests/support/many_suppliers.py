"""A process that owns very many suppliers: prints how many decided each block, and the most Redis connections it held.

It is a process of its own because asyncio's debug mode, in which the tests run, traces every step of its tasks.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

from direct import DirectChain, DirectComet, DirectSettlements
from pocket.api.workload import MinerConfig
from pocket.redis_store.connection import connect
from pocket.redis_store.redis_keys import RedisKeys
from pocket.runtime.public_urls import PublicUrlChecker
from pocket_localnet.local_chain import LocalChain
from pocket_miner.status.report import Reports
from pocket_miner.storage.audit import Audit
from pocket_miner.storage.dead_letters import DeadLetters
from pocket_miner.storage.relay_store import RelayStore
from pocket_miner.suppliers.factory import SupplierFactory
from pocket_miner.suppliers.fleet import SupplierManager
from pocket_miner.suppliers.latest_block import LatestBlock
from world import World, key


class Keeper:
    """Everything is ours."""

    async def verify_lease(self, shard: int) -> int:
        """Return epoch 1, because this process owns all shards."""
        return 1


async def settled() -> bool:
    return True


async def main(redis_url: str, folder: Path, number: int) -> None:
    keys = folder / "keys"
    keys.mkdir()
    for n in range(number):
        (keys / f"key-{n}").write_text(f"{key(f'supplier {n}').scalar:064x}")
    config = MinerConfig.model_validate(
        {
            "name": "main", "namespace": "ns", "prefix": "many", "redisUrl": redis_url, "keysDir": keys,
            "dataDir": folder, "chain": {"nodes": [{"grpc": "grpc://n:1", "rpc": "http://n:2"}]},
        }
    )  # fmt: skip
    chain, redis, watcher = LocalChain(World().genesis()), connect(redis_url), connect(redis_url)
    comet, board = DirectComet(chain), LatestBlock()
    relay_store, audit = RelayStore(folder / "mirror"), Audit(folder / "audit.sqlite")
    suppliers = SupplierFactory(
        config, redis, RedisKeys("many"), DirectChain(chain), comet, DirectSettlements(comet), relay_store, audit, None,
        settled,
        Reports(audit), None, PublicUrlChecker(time.time), DeadLetters(folder / "refused.sqlite"),
    )  # fmt: skip
    suppliers.keyring.reload()
    fleet = SupplierManager(suppliers, board, 30.0)
    fleet.keeper = Keeper()
    for shard in range(config.shards):
        await fleet.on_acquired(shard, 1)
    connections, decided = 0, []
    for _ in range(3):
        chain.step()
        board.publish(await comet.block())
        async with asyncio.timeout(100):
            while not all(
                chain.height == one.seen or one.supplier.quiet_at(chain.height) for one in fleet.running.values()
            ):
                connections = max(connections, len(await watcher.client_list()) - 1)
                await asyncio.sleep(0.02)
        decided.append(len(fleet.running))
    await fleet.stop()
    await redis.aclose()
    await watcher.aclose()
    print(json.dumps({"decided": decided, "connections": connections}), flush=True)  # noqa: T201 - the test reads it


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
