"""The status API of a miner: what it reports of a session from its first relay to its payment."""

import asyncio
import contextlib
import json
from datetime import datetime

import aiohttp
import pytest

from one_miner import a_miner, codes, until
from pocket.api import miner_status as api
from pocket.chain.comet import CometClient
from pocket.chain.failover import NodeAddress
from pocket.chain.settlement_event import claim_end
from pocket.redis_store.connection import connect
from pocket.redis_store.log_records import WalRecord
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.relay_recorder import RecorderLimits, RelayRecorder
from pocket.redis_store.write_ahead_log import WriteAheadLog
from pocket_localnet.hydration import hydrate
from pocket_localnet.local_chain import LocalChain
from pocket_localnet.server import serve
from world import World, address, key

pytestmark = pytest.mark.redis
ALICE = address("alice")


@contextlib.asynccontextmanager
async def a_mined_session(folder, redis_url, relays):
    """Start a miner whose supplier has relays of the first session. The chain is stepped by hand."""
    world = World()
    chain = LocalChain(world.genesis())
    redis = connect(redis_url)
    await redis.flushall()
    async with serve(chain) as localnet:
        node = {"grpc": localnet.grpc_url, "rpc": localnet.rpc_url}
        async with a_miner(folder, redis_url, node) as (ask, _):
            header = hydrate(chain.state, chain.block_hash, world.application("eth"), "eth", 0).header
            end = header.session_end_block_height
            rows = [
                WalRecord(ALICE, header.session_id, header.encode(), world.relay(header, "alice", number), end)
                for number in range(relays)
            ]
            log = WriteAheadLog(folder / "log", "w")
            try:
                recorder = RelayRecorder(redis, RedisKeys("start"), log, RecorderLimits(linger_seconds=0))
                await recorder._append(ALICE, rows, log.append(rows))
                yield ask, localnet, header
            finally:
                log.close()
                await redis.aclose()


async def reach(ask, localnet, height):
    """Step the chain block by block, each seen by the miner."""
    _, state = await until(ask, "/status/state", lambda status, _: status == 200)
    while state["height"] < height:
        localnet.step()
        seen = state["height"]
        _, state = await until(ask, "/status/state", lambda _, body, seen=seen: body["height"] > seen)
    return state


async def test_a_session_is_reported_from_its_first_relay_to_its_payment(tmp_path, redis_process):
    seen = []
    async with a_mined_session(tmp_path, redis_process.url, 5) as (ask, localnet, header):

        async def noting(path):
            status, body = await ask(path)
            seen.append(json.dumps(body))
            return status, body

        _, body = await until(noting, api.SESSIONS_PATH, lambda _, body: _relays(body) == [5])
        row = api.SessionPage.model_validate(body).rows[0]
        assert (row.supplier, row.session_id, row.service_id) == (ALICE, header.session_id, "eth")
        assert (row.start, row.end, row.relays, row.compute_units, row.value_upokt) == (1, 10, 5, 500, 500)

        await reach(noting, localnet, 5)
        _, body = await until(noting, api.SESSIONS_PATH, lambda _, body: body["rows"][0]["stage"] == "ACTIVE")
        row = api.SessionPage.model_validate(body).rows[0]
        assert (row.owes, row.due, row.windows.claim_open, row.windows.proof_close) == ("claim", 16, 12, 20)

        place = f"{api.SESSION_PATH}?supplier={ALICE}&session={header.session_id}"
        await reach(noting, localnet, 13)
        await until(noting, place, lambda _, body: _sent(body) == ["claim"])
        await reach(noting, localnet, 14)
        _, body = await advance(noting, localnet, api.SESSIONS_PATH, _is("CLAIMED"), 15)
        row = api.SessionPage.model_validate(body).rows[0]
        assert 13 <= row.sealed_height < row.claimed_height <= 15
        assert (row.relays, row.value_upokt, row.stage) == (5, 500, "CLAIMED")
        assert row.earning_upokt > 0
        _, body = await noting(place)
        opened = api.Explanation.model_validate(body)
        ((_, root),) = [fact for fact in opened.facts if fact[0] == "root"]
        assert len(bytes.fromhex(root)) == 48
        assert {kind for kind, _ in opened.transactions} == {"claim"}

        await reach(noting, localnet, 16)
        await until(noting, place, lambda _, body: _sent(body) == ["claim", "proof"])
        await reach(noting, localnet, 17)
        _, body = await advance(noting, localnet, api.SESSIONS_PATH, _is("PROVEN"), 19)
        assert 17 <= body["rows"][0]["proven_height"] <= 19
        await reach(noting, localnet, 21)
        _, body = await until(noting, api.OUTCOMES_PATH, lambda _, body: body["rows"])
        page = api.OutcomePage.model_validate(body)
        (ended,) = page.rows
        assert (page.more, page.next, page.first, ended.number) == (False, 1, 1, 1)
        async with aiohttp.ClientSession() as http:
            comet = CometClient([NodeAddress.parse(localnet.grpc_url, localnet.rpc_url)], http)
            events = await comet.end_events(20, lambda event: True)
            block = await comet.block(ended.height)
        (paid,) = [end for event in events if (end := claim_end(event)) is not None]
        assert (ended.earned_upokt, ended.settled_upokt, ended.relays) == (paid.earned_upokt, paid.settled_upokt, 5)
        assert dict(ended.earned_by) == dict(paid.supplier_side)
        assert (ended.paid, ended.lost, ended.start, ended.end, ended.windows.proof_close) == (True, False, 1, 10, 20)

        _, body = await noting(place)
        explained = api.Explanation.model_validate(body)
        assert explained.open is None
        assert {kind for kind, _ in explained.transactions} == {"claim", "proof"}
        assert (await noting(api.SESSIONS_PATH))[1]["rows"] == []
        _, body = await noting(api.SUPPLIERS_PATH)
        (supplier,) = api.SupplierPage.model_validate(body).rows
        ((day, totals),) = supplier.days.items()
        assert ended.time.startswith(day)
        assert block.time.seconds == datetime.fromisoformat(ended.time).timestamp()
        assert (totals.sessions, totals.settled, totals.earned_upokt) == (1, 1, paid.earned_upokt)
        assert (supplier.owned, supplier.staked, supplier.stake_upokt) == (True, True, 10**9)
        state = api.MinerState.model_validate((await noting(api.STATE_PATH))[1])
        assert (state.last_outcome, state.owned, len(state.shards)) == (1, (ALICE,), state.shard_count)
        assert state.volume.total > state.volume.free > 0
        assert state.redis.used_memory > 0
    secret = f"{key('alice').scalar:064x}"
    assert not [text for text in seen if secret in text.lower()]


async def advance(ask, localnet, path, wanted, last):
    """Step the chain, at most to a height, until a page is as wanted. Under load a transaction takes another block."""
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                return await until(ask, path, wanted)
        _, state = await ask(api.STATE_PATH)
        assert state["height"] < last, f"{path} is not as wanted at height {last}"
        await reach(ask, localnet, state["height"] + 1)


def _is(stage):
    return lambda _, body: body["rows"][0]["stage"] == stage


def _sent(body):
    return sorted({kind for kind, _ in body["transactions"]})


def _relays(body):
    return [row["relays"] for row in body.get("rows", [])]


async def test_pages_are_bounded_and_wrong_queries_are_refused(tmp_path, redis_process):
    async with a_mined_session(tmp_path, redis_process.url, 1) as (ask, _, header):
        await until(ask, api.SESSIONS_PATH, lambda _, body: body.get("rows"))
        assert len((await ask(f"{api.SESSIONS_PATH}?limit=0"))[1]["rows"]) == 1
        assert (await ask(f"{api.SESSIONS_PATH}?after={ALICE}/{header.session_id}"))[1]["rows"] == []
        assert (await ask(f"{api.SESSIONS_PATH}?limit=x&after=%00%ff"))[0] == 200
        assert (await ask(f"{api.SUPPLIERS_PATH}?after={ALICE}"))[1] == {"rows": [], "next": ""}
        for path, status in (
            (f"{api.OUTCOMES_PATH}?after=-1", 400), (f"{api.OUTCOMES_PATH}?after={'9' * 30}", 400),
            (f"{api.SESSION_PATH}?supplier={ALICE}&session=nothing", 404), (api.SESSION_PATH, 404),
        ):  # fmt: skip
            found = await ask(path)
            assert (found[0], list(found[1])) == (status, ["error"])


async def test_a_miner_that_waits_for_redis_reports_its_phase_and_no_empty_pages(tmp_path):
    node = {"grpc": "grpc://127.0.0.1:9", "rpc": "http://127.0.0.1:9"}
    async with a_miner(tmp_path, "redis://127.0.0.1:9/0", node) as (ask, _):
        _, body = await until(ask, api.STATE_PATH, lambda _, body: "RedisUnavailable" in codes(body))
        state = api.MinerState.model_validate(body)
        assert (state.height, state.block_time, state.owned) == (0, "", ())
        assert state.phase == "waiting"
        assert state.redis.problem
