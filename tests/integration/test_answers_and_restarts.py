"""A wrong or missing answer of chain nodes before or after a restart, or to one query for good, costs nothing."""

from dataclasses import replace

import pytest

from mine import mine, unharmed
from pocket.chain.failover import NodeAddress
from pocket.chain_cache.cached_client import CachedChain
from pocket.errors import ChainQueryRejected, ChainUnavailable, FailureClass
from pocket.protocol.pb import cosmos_auth_v1beta1_pb2 as auth_pb
from pocket.protocol.pb import pocket_tokenomics_pb2 as tokenomics_pb
from pocket.redis_store.redis_keys import RedisKeys

pytestmark = pytest.mark.redis
EASY, HARD = b"\xff" * 32, b"\x7f" + b"\xff" * 31
PROVEN = {"proof_request_probability": 1.0, "proof_missing_penalty": 10**6}


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
    header = alice.header()
    await alice.record(alice.relays(header, 5))
    await alice.to(11)
    alice.start()

    async def never(*_, **__):
        raise AssertionError("the terms are the same")

    monkeypatch.setattr(alice.miner.consumer, "_replace_terms", never)
    await alice.to(21)
    assert unharmed(alice, header)


@pytest.mark.parametrize("at", [14, 15])
@pytest.mark.parametrize(
    "method", ["GetSession", "RelayMiningDifficultyAtHeight", "ComputeUnitsPerRelayAtHeight", "a session that is none"]
)
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

        monkeypatch.setattr(alice.client, "_ask_node", ask)
        alice.start()
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
        header = alice.header()
        await alice.record(alice.relays(header, 5))
        await alice.to(22)
        assert told
        assert unharmed(alice, header)
