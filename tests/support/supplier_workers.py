"""Workers of suppliers whose decisions and reads a test tells."""

import asyncio
import random
from dataclasses import dataclass, field

from pocket.chain.model import Block
from pocket.protocol.claims.proof_requirement import ProofParams
from pocket.protocol.transactions.build import Timestamp
from pocket_miner.suppliers.proof_params import ProofParamsByHeight
from pocket_miner.suppliers.running import SupplierWorker


def block(height):
    return Block(height, bytes(32), Timestamp.of_nanoseconds(height * 10**9))


class Chained:
    async def decoded_by_node(self, *_):
        return {}

    async def proof_params(self):
        return ProofParams()


@dataclass
class Supplier:
    """Stands for a SupplierMiner: what it does is told by the test."""

    supplier: str
    behaviour: object = None
    sessions: dict = field(default_factory=dict)
    last_scan_at: float | None = None
    decided: list = field(default_factory=list)
    tails: int = 0
    tailed: asyncio.Event = field(default_factory=asyncio.Event)
    behind = False

    async def tail(self, limit=None):
        self.tails += 1
        self.tailed.set()
        return 0

    def quiet_at(self, height):
        return False

    async def on_block(self, found, proof):
        if self.behaviour is not None:
            await self.behaviour(found)
        self.decided.append(found.height)
        return {"ACTIVE": 1}


def running(supplier, board, gate=None, fenced=lambda *_: None):
    gates = (gate or asyncio.Semaphore(32), asyncio.Semaphore(32))
    return SupplierWorker(supplier, ProofParamsByHeight(Chained()), board, *gates, 30.0, fenced, random.Random(1))


async def until(check):
    async with asyncio.timeout(10):
        while not check():  # noqa: ASYNC110 - lets the tasks under test go on, one step each
            await asyncio.sleep(0)
