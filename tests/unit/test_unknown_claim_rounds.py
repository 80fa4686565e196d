"""When claims on chain are compared with known sessions, and at which heights."""

import asyncio
from types import SimpleNamespace

import pytest

from pocket.api.workload import MinerConfig
from pocket.errors import ChainUnavailable
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.windows import SharedParams
from pocket.redis_store.redis_keys import RedisKeys
from pocket_miner.process import miner_process
from pocket_miner.suppliers.latest_block import LatestBlock
from pocket_miner.suppliers.unknown_claims import UnknownClaims
from supplier_workers import block, until

PARAMS = SharedParams()  # sessions of ten blocks from block 1 on, the first one's claim window ends at block 16


class Chain:
    """A chain with some claims, whose queries are listed."""

    def __init__(self, claims=(), error=None):
        self.claims, self.error, self.params_at, self.claims_at = claims, error, [], []

    async def shared_params(self, at):
        self.params_at.append(at)
        assert len(self.params_at) < 100, "a query for each block"
        if self.error is not None:
            raise self.error
        return PARAMS

    async def claims_of(self, supplier, height):
        self.claims_at.append((supplier, height))
        return [SimpleNamespace(header=SessionHeader("app", "eth", name, 1, 10)) for name in self.claims]


def miner(name="alice", *, scanned=1.0, known=(), finished=()):
    concluder = SimpleNamespace(finished=dict.fromkeys(finished, 10))
    return SimpleNamespace(supplier=name, last_scan_at=scanned, sessions=dict.fromkeys(known), concluder=concluder)


@pytest.fixture
def alerts(captured_logs):
    return lambda: [(row["supplier"], row["session"]) for row in captured_logs if row["log_level"] == "error"]


@pytest.mark.parametrize("height", [0, 1, 15])
async def test_nothing_is_compared_before_the_first_claim_window_is_over(height):
    chain = Chain(["s"])
    await UnknownClaims(chain).check([miner()], height)
    assert chain.claims_at == []
    assert all(at > 0 for at in chain.params_at), "no block has such a height"


@pytest.mark.parametrize("height", [16, 25, 26, 27, 36])
async def test_the_latest_session_whose_claim_window_is_over_is_found_by_the_params_of_its_own_blocks(height):
    chain = Chain()
    unknown = UnknownClaims(chain)
    await unknown.check([miner()], height)
    session_end = unknown._session_end
    assert PARAMS.windows(session_end).claim_close <= height < PARAMS.windows(session_end + 1).claim_close
    assert chain.params_at[0] == height
    assert chain.params_at[-1] == session_end, "params may change between sessions"


async def test_each_supplier_is_compared_once_per_session_at_the_height_of_the_check_and_once_it_was_read():
    chain, read = Chain(), [miner("alice"), miner("bob")]
    unread, unknown = miner("carol", scanned=None), UnknownClaims(chain)
    for height in range(16, 28):
        unread.last_scan_at = 5.0 if height >= 20 else None
        await unknown.check([*read, unread], height)
    assert chain.claims_at == [
        ("alice", 16), ("bob", 16), ("carol", 20), ("alice", 26), ("bob", 26), ("carol", 26),
    ]  # fmt: skip


async def test_a_claim_of_an_unknown_session_is_told_once_when_a_second_answer_shows_it_too(alerts):
    chain = Chain(["open", "ended", "b", "a"])
    unknown = UnknownClaims(chain)
    alice = miner(known=["open"], finished=["ended"])
    for height in range(16, 20):
        await unknown.check([alice], height)
        assert alerts() == ([] if height == 16 else [("alice", "a"), ("alice", "b")])
    chain.claims = ["open", "ended", "b", "a", "c"]
    for height in (26, 27, 28):
        await unknown.check([alice], height)
    assert alerts()[2:] == [("alice", "c")], "the others were told before"
    assert chain.claims_at == [("alice", height) for height in (16, 17, 26, 27)]


async def test_a_claim_that_is_no_longer_shown_or_known_by_then_is_not_told(alerts):
    chain, alice = Chain(["a"]), miner()
    unknown = UnknownClaims(chain)
    await unknown.check([alice], 16)
    alice.sessions["a"] = None
    await unknown.check([alice], 17)
    await unknown.check([alice], 18)
    assert (alerts(), len(chain.claims_at)) == ([], 2)


async def test_a_supplier_whose_claims_or_params_cannot_be_queried_stays_due():
    chain = Chain(error=ChainUnavailable("away"))
    unknown = UnknownClaims(chain)
    await unknown.check([miner()], 16)
    assert chain.claims_at == []
    chain.error = None

    async def away(supplier, height):
        raise TimeoutError

    chain.claims_of, real = away, chain.claims_of
    await unknown.check([miner()], 17)
    chain.claims_of = real
    await unknown.check([miner()], 18)
    assert chain.claims_at == [("alice", 18)]


async def test_the_suppliers_that_are_mined_are_compared_at_each_new_block_and_no_block_twice(monkeypatch):
    board, mined, checked = LatestBlock(), [], []
    unknown = UnknownClaims(Chain())

    async def check(self, miners, height):
        checked.append((list(miners), height))

    monkeypatch.setattr(UnknownClaims, "check", check)
    task = asyncio.create_task(unknown.run(board, lambda: mined, 0.001))
    for height, supplier in ((16, "alice"), (19, "bob"), (20, "carol")):
        mined.append(supplier)
        board.publish(block(height))
        await until(lambda height=height: checked[-1:] and checked[-1][1] == height)
    task.cancel()
    await asyncio.wait({task})
    assert checked == [(["alice"], 16), (["alice", "bob"], 19), (["alice", "bob", "carol"], 20)]


async def test_a_miner_compares_the_claims_of_the_suppliers_that_it_mines_at_its_blocks(monkeypatch, tmp_path):
    monkeypatch.setattr(miner_process, "supervise", lambda name, loop: (name, loop))
    config = MinerConfig.model_validate(
        {
            "name": "trial", "namespace": "default", "prefix": "unit", "redisUrl": "redis://127.0.0.1:1/0",
            "dataDir": tmp_path, "keysDir": tmp_path, "adminPort": 1,
            "chain": {"id": "pocket", "nodes": [{"grpc": "grpc://a:1", "rpc": "http://a:2"}], "blockSeconds": 1},
        }
    )  # fmt: skip
    process, chain = miner_process.MinerProcess(config), Chain()
    fleet = SimpleNamespace(running={"alice": SimpleNamespace(supplier=miner())})
    parts = SimpleNamespace(chain=chain, fleet=fleet, redis=None, keys=RedisKeys("unit"), suppliers=None, nodes=None)
    loops = dict(process._background_loops(parts))
    task = asyncio.create_task(loops["unknown claims"]())
    process._board.publish(block(16))
    await until(lambda: chain.claims_at)
    fleet.running["bob"] = SimpleNamespace(supplier=miner("bob"))
    process._board.publish(block(26))
    await until(lambda: len(chain.claims_at) == 3)
    assert chain.claims_at == [("alice", 16), ("alice", 26), ("bob", 26)]
    task.cancel()
    await asyncio.wait({task})
