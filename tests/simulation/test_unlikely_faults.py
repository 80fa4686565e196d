"""Faults of API server, peers, accounts and single keys, as the product's own clients meet them."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from aiohttp import web
from simulated import acts, http
from simulated.draw import draw
from simulated.http import Http, Ports
from simulated.leases import LeaseServer
from simulated.life import Life
from simulated.loop import Process
from simulated.network import Network
from simulated.nodes import Node
from simulated.plan import Fault, Kind
from simulated.system import KEYS

from pocket.coordination.elector import LeaseRecord
from pocket.coordination.stores.kubernetes_leases import KubeLeaseStore
from pocket.coordination.stores.lease_store import LeaseUnavailable
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket_localnet.local_chain import LocalChain
from pocket_miner.ingest.peers import Peers, PeerSession
from world import World, address

START = datetime(2026, 1, 1, tzinfo=UTC)
RECORD = LeaseRecord("miner-0_uid_1", 15, START, START, 1)
URL = "http://miner-1.peers:9090"
PATHS = ("/peer/sessions", "/peer/seals", "/peer/relays", "/peer/ended")


def fault(kind, seconds=1.0, *, target="", share=1.0, at=0.0, seed=1):
    return Fault(0, kind, at, seconds, target, share, seed)


def network():
    async def pause(_):
        return None

    loop = SimpleNamespace(
        chance=random.Random(1), note=lambda *_: None, pause=pause, time=lambda: 0.0,
        spawn=lambda _, work: asyncio.ensure_future(work),
    )  # fmt: skip
    return Network(loop)


async def test_an_api_server_lists_no_leases_while_it_has_them():
    between = network()
    store = KubeLeaseStore(LeaseServer(between, pytest.fail).api(), "default", "sim", call_seconds=1.0)
    await store.write("sim-shard-0", RECORD, None)
    between.holding.append(fault(Kind.LEASES_EMPTY))
    assert await store.read() == {}
    between.holding.clear()
    assert (await store.read())["sim-shard-0"].record == RECORD


async def test_an_api_server_that_fails_has_executed_every_second_call():
    between = network()
    server = LeaseServer(between, pytest.fail)
    store = KubeLeaseStore(server.api(), "default", "sim", call_seconds=1.0)
    between.holding.append(fault(Kind.LEASES_FAIL))
    for number in range(4):
        with pytest.raises(LeaseUnavailable):
            await store.write(f"sim-shard-{number}", RECORD, None)
    assert len(server.rows) == 2


@pytest.mark.parametrize("number", range(len(http._GARBAGE)))
async def test_no_garbage_of_a_peer_is_an_answer(number, monkeypatch):
    async def served(_):
        return web.json_response([])

    between, ports = network(), Ports()
    ports.open["miner-1.peers:9090"] = (Process("miner-1"), dict.fromkeys(PATHS, served))
    monkeypatch.setattr(http, "_GARBAGE", (http._GARBAGE[number],))
    peers = Peers(Http(between, {}, ports), lambda: [URL])
    assert await peers.sessions("alice") == (True, [])
    between.holding.append(fault(Kind.PEERS_GARBAGE))
    taken = []

    async def take(values):
        taken.extend(values)

    known = PeerSession(URL, "one", b"", "1-0", "origin", 1)
    assert await peers.sessions("alice") == (False, [])
    assert await peers.ended("alice", ["one"]) == (False, set())
    assert await peers.seals("alice") == []
    assert not await peers.relays(known, "alice", 10, take)
    assert taken == []


async def test_a_node_tells_a_part_of_the_gas():
    between = network()
    node = Node("node0", LocalChain(World().genesis()), between.loop, between, lambda *_: None)
    answer = tx_pb.SimulateResponse()
    answer.gas_info.gas_used = 1000
    between.holding.append(fault(Kind.NODE_LOW_GAS, target="node0", share=0.25))
    assert tx_pb.SimulateResponse.FromString(node._with_low_gas(answer.SerializeToString())).gas_info.gas_used == 250
    between.holding.clear()
    assert node._with_low_gas(answer.SerializeToString()) == answer.SerializeToString()


async def test_an_account_gets_back_what_it_had_beside_what_it_got():
    chain, told = LocalChain(World().genesis()), []
    system, alice = SimpleNamespace(chain=chain, tell=told.append), address("alice")
    had = chain.state.balances[alice]
    empty = asyncio.create_task(acts._no_funds(system, fault(Kind.NO_FUNDS, 0.0, target="alice")))
    await asyncio.sleep(0)
    assert chain.state.balances[alice] == 0
    chain.state.balances[alice] += 5
    await empty
    assert chain.state.balances[alice] == had + 5
    assert len(told) == 2


@contextmanager
def life(faults: list[Fault]) -> Iterator[Life]:
    made = Life(1, faults)
    try:
        yield made
    finally:
        made.loop.close()
        made.system.clean()


@pytest.mark.parametrize(("away", "left"), [([], 1), ([fault(Kind.PEERS_AWAY, 20.0)], 2)])
def test_one_key_is_lost_unless_it_is_the_last_copy_within_reach(away, left):
    with life(away) as made:
        alice, header = address("alice"), made.system.session("eth", 1)
        stream = KEYS.stream(alice, header.session_id).encode()
        redis = made.system.redis.primary.model
        redis.execute((b"XADD", stream, b"*", b"r", b"relay"))
        redis.execute((b"SET", KEYS.fence(address("bob")).encode(), b"1"))
        made.system.acknowledged[alice, header.session_id] = {b"relay"}
        made._redis_key_lost(fault(Kind.REDIS_KEY_LOST, target="alice"), None)
        assert len(redis.data.values) + len(made.system.redis.primary.model.data.values) == 2 * left
        assert (stream in made.system.redis.primary.model.data.values) is (left == 2)


def test_a_third_of_the_lives_with_faults_has_an_unlikely_one():
    kinds = {
        Kind.REDIS_KEY_LOST, Kind.LEASES_EMPTY, Kind.LEASES_FAIL, Kind.PEERS_GARBAGE, Kind.NODE_LOW_GAS, Kind.NO_FUNDS,
        Kind.DISK_HANGS, Kind.SHARED_PARAMS, Kind.CHAIN_HALTS,
        Kind.NODE_PRUNES, Kind.NODE_SILENT, Kind.NODE_SLOW, Kind.NODE_SWALLOWS, Kind.NODE_NO_INDEX, Kind.LEASES_SLOW,
        Kind.KEYS_AWAY, Kind.VOLUME_OLDER,
    }  # fmt: skip
    drawn = [{f.kind for f in draw(seed)} & kinds for seed in range(1, 701) if seed % 7]
    assert {kind for row in drawn for kind in row} == kinds
    assert 0.25 < sum(map(bool, drawn)) / len(drawn) < 0.45
    assert all(len(row) <= 1 for row in drawn)
