"""The localnet through our chain client and CometBFT reader, over real sockets."""

import asyncio
import json

import aiohttp
import pytest

from direct import latest_over_grpc
from pocket.chain.client import ChainClient
from pocket.chain.comet import CometClient
from pocket.chain.failover import NodeAddress
from pocket.chain_cache.cached_client import CachedChain
from pocket.errors import ChainUnavailable, ConfigurationError, NotFound
from pocket.protocol.claims.proof_requirement import Claim
from pocket.protocol.relays.messages import SessionHeader
from pocket.redis_store.connection import connect
from pocket.redis_store.redis_keys import RedisKeys
from pocket_localnet.grpc_service import METHODS
from pocket_localnet.local_chain import LocalChain
from pocket_localnet.server import serve
from world import World, address


@pytest.fixture
async def net():
    chain = LocalChain(World().genesis())
    async with serve(chain) as localnet, aiohttp.ClientSession() as http:
        node = NodeAddress.parse(localnet.grpc_url, localnet.rpc_url)
        async with ChainClient([node]) as client:
            yield localnet, client, CometClient([node], http), http


async def test_announcements_come_over_the_websocket(net):
    localnet, _, comet, _ = net
    heights = comet.heights()
    first = asyncio.ensure_future(anext(heights))
    while not first.done():
        localnet.step()
        await asyncio.wait({first}, timeout=0.05)
    assert first.result() <= localnet.chain.height
    await heights.aclose()


async def test_a_lost_node_is_an_error_of_the_announcements():
    node = NodeAddress.parse("127.0.0.1:1", "http://127.0.0.1:1")
    async with aiohttp.ClientSession() as http:
        comet = CometClient([node], http, 0.3)
        with pytest.raises(ChainUnavailable):
            await anext(comet.heights())
        with pytest.raises(ChainUnavailable):
            await comet.chain_id()


async def test_blocks_results_and_refusals(net):
    localnet, client, comet, _ = net
    localnet.step()
    assert await comet.chain_id() == await client.chain_id() == "pocket"
    assert await comet.block(1) == await client.block(1)
    assert (await comet.block()).height == localnet.chain.height
    assert await comet.end_events(1, lambda event: True) == localnet.chain.blocks[1].end_events
    for ask in (comet.block(99), comet.block(0), client.block(99)):
        with pytest.raises(ChainUnavailable):
            await ask
    assert await client.minimum_gas_price() == ""
    assert await client.supplier_min_stake_upokt() == 1_000_000


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/status", 200, "pocket"),
        ("/block?height=99", 500, "must be less than or equal"),
        ("/block?height=abc", 500, "invalid 64-bit integer"),
        ("/block?height=0", 500, "greater than 0"),
        ("/no_such_method", 404, "404 page not found"),
        ("/health", 200, "result"),
        ("/header?height=1", 200, "chain_id"),
        ("/abci_info", 200, "last_block_height"),
        ("/tx?hash=0xzz", 500, "error converting http params"),
        (f"/tx?hash=0x{'AB' * 32}", 500, f"tx ({'AB' * 32}) not found"),
    ],
)
async def test_uri_calls_answer_as_a_node_does(net, path, status, text):
    localnet, _, _, http = net
    async with http.get(localnet.rpc_url + path) as answer:
        assert answer.status == status
        assert text in await answer.text()


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"not json", 500, "-32700"),
        (b"[]", 200, "[]"),
        (b"5", 200, "-32600"),
        (b'{"id":7,"method":"block","params":{"height":1}}', 200, "expected string"),
        (b'{"id":"a","method":"block","params":["1"]}', 200, '"id": "a"'),
        (b'{"id":1,"method":"nope"}', 200, "-32601"),
        (b'{"id":1,"method":"broadcast_tx_sync","params":{"tx":"***"}}', 200, "-32602"),
        (b'{"id":1,"method":"broadcast_tx_sync","params":{"tx":"AQID"}}', 200, '"code": 2'),
    ],
)
async def test_posted_calls_answer_as_a_node_does(net, body, status, text):
    localnet, _, _, http = net
    async with http.post(localnet.rpc_url, data=body) as answer:
        assert answer.status == status
        assert text in await answer.text()


async def test_websocket_errors_are_those_of_a_node(net):
    localnet, _, _, http = net
    async with http.ws_connect(localnet.rpc_url + "/websocket") as socket:

        async def ask(**request):
            await socket.send_str(json.dumps({"jsonrpc": "2.0", "id": 1, **request}))
            return await socket.receive_json()

        header = {"query": "tm.event='NewBlock'"}
        assert (await ask(method="unsubscribe_all"))["error"]["data"] == "subscription not found"
        assert (await ask(method="subscribe", params=header))["result"] == {}
        assert (await ask(method="subscribe", params=header))["error"]["data"] == "already subscribed"
        assert "error" in await ask(method="subscribe", params={"query": "this is not a query"})
        assert (await ask(method="status"))["result"]["node_info"]["network"] == "pocket"
        assert (await ask(method="unsubscribe", params=header))["result"] == {}
        await socket.send_str("not json")
        assert (await socket.receive_json())["error"]["code"] == -32700


async def test_control_steps_shows_state_and_takes_faults(net):
    localnet, client, _, http = net
    async with http.post(localnet.rpc_url + "/localnet/step?blocks=5") as answer:
        assert (await answer.json())["height"] == localnet.chain.height
    async with http.get(localnet.rpc_url + "/localnet/state") as answer:
        assert address("alice") in (await answer.json())["balances"]
    faults = {"evict": 1, "lag_blocks": 2, "refuse": [{"code": 20, "codespace": "sdk", "log": "mempool is full"}]}
    async with http.post(localnet.rpc_url + "/localnet/faults", json=faults) as answer:
        assert await answer.json() == {"evict": 1, "hold_blocks": 0, "lag_blocks": 2, "refuse": 1}
    assert await latest_over_grpc(client) == localnet.chain.height - 2
    assert (await client.broadcast(b"x")).code == 20


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("step?blocks=x", "", "blocks"), ("step?blocks=0", "", "blocks"), ("faults", '{"evct": 1}', "evct"),
        ("faults", '{"hold_blocks": -1}', "hold_blocks"), ("faults", '{"refuse": [{"code": 1}]}', "codespace"),
        ("faults", "[", "JSON"),
    ],
)  # fmt: skip
async def test_control_names_what_is_wrong_with_a_request(net, path, body, named):
    localnet, _, _, http = net
    height = localnet.chain.height
    async with http.post(f"{localnet.rpc_url}/localnet/{path}", data=body) as answer:
        assert (answer.status, named in await answer.text()) == (400, True)
    assert localnet.chain.height == height


async def test_an_occupied_port_is_a_configuration_error(net):
    localnet, _, _, _ = net
    port = int(localnet.rpc_url.rsplit(":", 1)[1])
    with pytest.raises(ConfigurationError, match="choose other ports"):
        async with serve(LocalChain(World().genesis()), rpc_port=port):
            pass


async def test_claims_come_page_by_page_and_units_fall_back_to_the_live_value(net, monkeypatch):
    localnet, client, _, _ = net
    state = localnet.chain.state
    for i in range(230):
        header = SessionHeader(World().application("eth"), "eth", f"{i:064x}", 1, 10)
        state.claims[header.session_id, address("alice")] = Claim(address("alice"), header, bytes(48))
    assert len(await client.claims_of(address("alice"))) == 230
    monkeypatch.delitem(METHODS, "/pocket.service.Query/ComputeUnitsPerRelayAtHeight")
    assert await client.compute_units_per_relay("eth", 1) == 100
    with pytest.raises(NotFound):
        await client.transaction("AB" * 32)


@pytest.mark.redis
async def test_cached_answers_are_shared_through_redis_and_refusals_are_not_cached(net, redis):
    localnet, _, _, _ = net
    node = NodeAddress.parse(localnet.grpc_url, localnet.rpc_url)
    clock = [0.0]
    one = CachedChain([node], redis, RedisKeys("cache"), clock=lambda: clock[0], entries=2)
    two = CachedChain([node], redis, RedisKeys("cache"), clock=lambda: clock[0])
    app = World().application("eth")
    assert await one.application(app) == await one.application(app) == await two.application(app)
    assert (one.counters.chain, one.counters.memory, two.counters.redis) == (1, 1, 1)
    for _ in range(2):
        with pytest.raises(NotFound):
            await one.supplier(address("nobody"))
    assert one.counters.chain == 3
    clock[0] = 100.0
    await one.application(app)
    assert one.counters.redis == 1
    one.forget()
    for height in (1, 2, 3):
        await one.shared_params(height)
        localnet.step()
    await latest_over_grpc(one)
    dead = CachedChain([node], connect("redis://127.0.0.1:1"), RedisKeys("x"))
    assert (await dead.application(app)).address == app
    for client in (one, two, dead):
        await client.close()


@pytest.mark.redis
async def test_a_node_that_tells_another_session_than_the_others_is_noticed(net, redis):
    localnet, _, _, _ = net
    node = NodeAddress.parse(localnet.grpc_url, localnet.rpc_url)
    app = World().application("eth")
    async with serve(LocalChain(World(suppliers=("mallory",)).genesis())) as strange:
        other = NodeAddress.parse(strange.grpc_url, strange.rpc_url)
        one, two = (CachedChain([place], redis, RedisKeys("told")) for place in (node, node))
        await one.session(app, "eth", 1)
        await two.session(app, "eth", 1)
        assert (one.counters.divergent, two.counters.divergent) == (0, 0)
        # Another process that asked the strange node while the shared answer had expired.
        three = CachedChain([other], redis, RedisKeys("told"))
        await redis.delete(*[name async for name in redis.scan_iter("told:cache:GetSession:*")])
        await three.session(app, "eth", 1)
        await three.session(app, "eth", 1)
        assert three.counters.divergent == 1
        for client in (one, two, three):
            await client.close()


@pytest.mark.redis
async def test_many_who_ask_the_chain_the_same_at_once_are_one_query(redis):
    chain = LocalChain(World().genesis())
    async with serve(chain) as localnet:
        node = NodeAddress.parse(localnet.grpc_url, localnet.rpc_url)
        client = CachedChain([node], redis, RedisKeys("one-query"))
        first = asyncio.create_task(client.shared_params(1))
        others = [asyncio.create_task(client.shared_params(1)) for _ in range(50)]
        await asyncio.sleep(0)
        first.cancel()
        assert len(set(await asyncio.gather(*others))) == 1, "who leaves takes nobody with him"
        assert client.counters.chain == 1
        await client.close()


@pytest.mark.redis
async def test_what_a_process_keeps_of_answers_is_bounded_in_bytes(net, redis):
    localnet, _, _, _ = net
    node = NodeAddress.parse(localnet.grpc_url, localnet.rpc_url)
    app, clock = World().application("eth"), [0.0]
    chain = CachedChain([node], redis, RedisKeys("cache"), clock=lambda: clock[0], most_bytes=1000)
    for height in range(1, 40):
        await chain.shared_params(height)
        localnet.step()
        await chain.application(app)
        kept = [answer for _, answer in chain._memory.values()]
        assert sum(map(len, kept)) == chain._memory_bytes <= 1000
    assert len(kept) > 3
    clock[0] = 100.0  # what is asked for again takes the place of what it was
    await chain.application(app)
    chain.forget()
    assert sum(len(answer) for _, answer in chain._memory.values()) == chain._memory_bytes
    await chain.close()
