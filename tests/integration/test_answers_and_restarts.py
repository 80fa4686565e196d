"""A wrong or missing answer of chain nodes before or after a restart, or to one query for good, costs nothing."""

import asyncio
import contextlib
from dataclasses import replace

import pytest

from mine import mine, unharmed
from pocket.chain.failover import NodeAddress
from pocket.chain.model import TransactionResult
from pocket.chain_cache.cached_client import CachedChain
from pocket.errors import ChainQueryRejected, ChainUnavailable, FailureClass
from pocket.protocol.claims.proof_requirement import Claim
from pocket.protocol.pb import cosmos_auth_v1beta1_pb2 as auth_pb
from pocket.protocol.pb import pocket_tokenomics_pb2 as tokenomics_pb
from pocket.protocol.transactions.build import transaction_hash
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.store_errors import RedisUnavailable
from pocket_miner.sessions import start_params

pytestmark = pytest.mark.redis
EASY, HARD = b"\xff" * 32, b"\x7f" + b"\xff" * 31
PROVEN = {"proof_request_probability": 1.0, "proof_missing_penalty": 10**6}


@pytest.mark.usefixtures("no_recorded_terms")
@pytest.mark.parametrize("wrong", ["too high", "too low", "units"])
@pytest.mark.parametrize("restart", [True, False])
async def test_relays_that_were_stored_by_wrong_terms_are_validated_again(redis, tmp_path, wrong, restart):
    async with mine(redis, tmp_path, proof_params=PROVEN) as alice:
        header, chain = alice.header(), alice.client
        right, stated = (HARD, EASY) if wrong == "too high" else (EASY, HARD)
        if wrong == "units":
            right = stated = EASY
        known = alice.chain._state.difficulty_at("eth", 1)
        alice.chain._state.difficulties["eth"] = (replace(known, target_hash=right),)
        difficulty, units = chain.difficulty, chain.compute_units_per_relay

        async def wrong_difficulty(service, height):
            return replace(await difficulty(service, height), target_hash=stated)

        async def wrong_units(service, height):
            return (1 + (wrong == "units")) * await units(service, height)

        chain.difficulty, chain.compute_units_per_relay = wrong_difficulty, wrong_units
        await alice.record(alice.relays(header, 12))
        await alice.to(6)
        chain.difficulty, chain.compute_units_per_relay = difficulty, units
        if restart:
            alice.start()
        await alice.to(26)
        assert unharmed(alice, header)
        relays = alice.outcomes()[header.session_id]["details"]["relays"]
        assert relays < 12 if right == HARD else relays == 12


async def test_relays_that_were_stored_by_the_same_terms_are_not_read_again_after_a_restart(alice, monkeypatch):
    header = await alice.recorded(5)
    await alice.to(11)
    alice.start()

    async def never(*_, **__):
        raise AssertionError("the terms are the same")

    monkeypatch.setattr(alice.miner.consumer, "_replace_terms", never)
    await alice.to(21)
    assert unharmed(alice, header)


@pytest.mark.usefixtures("no_recorded_terms")
@pytest.mark.parametrize("at", [14, 15])
@pytest.mark.parametrize(
    "method",
    [
        "GetSession", "RelayMiningDifficultyAtHeight", "ComputeUnitsPerRelayAtHeight", "ParamsAtHeight",
        "auth.v1beta1.Query/Account", "a session that is none",
    ],
)  # fmt: skip
async def test_a_claim_is_proven_although_the_terms_of_its_session_are_unknown(
    redis, tmp_path, monkeypatch, method, at
):
    async with mine(redis, tmp_path, proof_params=PROVEN) as alice:
        header, real = alice.header(), alice.client._ask_node
        await alice.record(alice.relays(header, 5))
        await alice.to(at)
        assert alice.claim(header) is not None

        async def ask(channel, asked, request, height=0):
            if asked.endswith(method):
                raise ChainUnavailable(f"no answer to {asked}")
            if method.startswith("a session") and asked.endswith("GetSession"):
                raise ChainQueryRejected("could not find app", failure=FailureClass.SESSION_NEVER, height=alice.number)
            return await real(channel, asked, request, height)

        with monkeypatch.context() as patched:
            patched.setattr(alice.client, "_ask_node", ask)
            alice.start()
            await alice.to(20)
        await alice.to(24)
        assert unharmed(alice, header)


def wrong_account(raw):
    message = auth_pb.QueryAccountResponse.FromString(raw)
    account = auth_pb.BaseAccount.FromString(message.account.value)
    account.account_number += 1000
    message.account.value = account.SerializeToString()
    return message.SerializeToString()


def no_share(raw):
    message = tokenomics_pb.QueryParamsResponse.FromString(raw)
    split = message.params.mint_equals_burn_claim_distribution
    split.dao, split.supplier = split.dao + split.supplier, 0.0
    return message.SerializeToString()


WRONG = {"auth.v1beta1.Query/Account": wrong_account, "tokenomics.Query/Params": no_share}


@pytest.mark.parametrize("method", WRONG)
async def test_an_account_number_or_share_that_one_node_states_wrong_for_ever_costs_no_claim(alice, method):
    addresses = [
        NodeAddress.parse(alice.localnet.grpc_url.replace("127.0.0.1", host), alice.localnet.rpc_url)
        for host in ("localhost", "127.0.0.1")
    ]
    async with CachedChain(addresses, alice.redis, RedisKeys("test")) as chain:
        real, told = chain._ask_node, []

        async def ask(channel, asked, request, height=0):
            raw, at = await real(channel, asked, request, height)
            if asked.endswith(method) and channel is chain._channels[0]:
                told.append(asked)
                return WRONG[method](raw), at
            return raw, at

        chain._ask_node = ask
        alice.client = chain
        alice.start()
        header = await alice.recorded(5)
        await alice.to(22)
        assert told
        assert unharmed(alice, header)


async def keeping(alice, monkeypatch, sent):
    """Let nodes keep the first transaction without including it: they know its bytes from then on."""
    real = alice.client.broadcast

    async def broadcast(raw):
        if not sent or raw == sent[0]:
            known = bool(sent)
            sent.append(raw)
            return TransactionResult(transaction_hash(raw), 19 if known else 0, "sdk" if known else "", "")
        return await real(raw)

    monkeypatch.setattr(alice.client, "broadcast", broadcast)


@pytest.mark.parametrize(("begun", "first"), [(11, 14), (15, 18)], ids=["claim", "proof"])
async def test_bytes_that_nodes_keep_until_the_window_closes_are_signed_again(
    redis, tmp_path, monkeypatch, begun, first
):
    async with mine(redis, tmp_path, proof_params=PROVEN) as alice:
        header, sent = alice.header(), []
        await alice.record(alice.relays(header, 5))
        await alice.to(begun)
        alice.skip(first - 1)
        await keeping(alice, monkeypatch, sent)
        await alice.to(24)
        assert len(sent) > 1
        assert unharmed(alice, header)


async def test_a_claim_that_one_node_showed_once_is_sent_again_while_no_node_does(alice, monkeypatch):
    header, sent = alice.header(), []
    await alice.record(alice.relays(header, 5))
    await alice.to(12)
    real, shown = alice.client.claims_of, []

    async def claims_of(supplier, height=0):
        seal = alice.miner.sessions[header.session_id].seal
        if height == 14 and seal is not None:
            shown.append(height)
            return [Claim(supplier, header, seal.root)]
        return await real(supplier, height)

    monkeypatch.setattr(alice.client, "claims_of", claims_of)
    real_broadcast = alice.client.broadcast

    async def broadcast(raw):
        if not sent:
            sent.append(raw)
            return TransactionResult(transaction_hash(raw), 0, "", "")
        return await real_broadcast(raw)

    monkeypatch.setattr(alice.client, "broadcast", broadcast)
    await alice.to(22)
    assert shown
    assert unharmed(alice, header)


async def test_a_session_whose_commands_redis_refuses_is_sealed_from_the_volume(alice):
    header, keys = alice.header(), RedisKeys("test")
    await alice.record(alice.relays(header, 5))
    await alice.to(11)
    await alice.redis.set(keys.fence(alice.supplier), b"damaged")

    async def decide():
        with contextlib.suppress(RedisUnavailable):
            await alice.miner.tail()
        return await alice.miner.on_block(await alice.comet.block(), await alice.client.proof_params())

    usual, alice.decide = alice.decide, decide
    await alice.to(17)
    await alice.redis.delete(keys.fence(alice.supplier))
    alice.decide = usual
    await alice.to(24)
    assert unharmed(alice, header)


async def test_a_paid_session_of_a_former_owner_is_not_booked_as_missed_by_nodes_without_events(alice, monkeypatch):
    await alice.recorded(5)
    await alice.to(19)
    alice.audit._database.execute("DELETE FROM cost")
    alice.skip(20)

    async def lost(height, wanted):
        return ()

    async def lost_by_node(height, wanted):
        return {"node": ()}

    monkeypatch.setattr(alice.comet, "end_events", lost)
    monkeypatch.setattr(alice.comet, "end_events_by_node", lost_by_node)
    alice.start()
    await alice.to(24)
    assert alice.outcomes() == {}


async def test_terms_that_no_node_states_in_time_are_asked_for_one_session_a_block(alice, monkeypatch):
    params, asked = alice.miner.consumer.start_params, []
    monkeypatch.setattr(start_params, "_SECONDS", 0.01)

    async def hang():
        asked.append("hung")
        await asyncio.Event().wait()

    async def answer():
        return {"node": 7}

    assert [await params.in_time(5, ask) for ask in (hang, hang, answer)] == [{}, {}, {}]
    assert await params.in_time(6, answer) == {"node": 7}
    assert await params.in_time(6, hang) == {}
    assert len(asked) == 2


@pytest.mark.parametrize("away_from", [11, 14])
async def test_what_no_node_simulates_is_sent_with_typical_gas_before_its_window_closes(
    redis, tmp_path, monkeypatch, away_from
):
    async with mine(redis, tmp_path, proof_params=PROVEN) as alice:
        header = await alice.recorded(5)
        await alice.to(away_from)

        async def away(raw):
            raise ChainUnavailable("Simulate: 403 Forbidden")

        monkeypatch.setattr(alice.client, "simulate", away)
        await alice.to(24)
        assert unharmed(alice, header)


async def test_a_node_that_simulates_absurdly_little_gas_costs_no_session(redis, tmp_path, monkeypatch):
    async with mine(redis, tmp_path, proof_params=PROVEN) as alice:
        header = await alice.recorded(5)

        async def little(raw):
            return 1

        monkeypatch.setattr(alice.client, "simulate", little)
        await alice.to(24)
        assert unharmed(alice, header)
