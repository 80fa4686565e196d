"""The terms with which relays were recorded on the volume suffice to seal, claim and prove them after a restart."""

import pytest

from mine import mine, slow_root, unharmed
from other_miners import another, follow
from pocket.errors import ChainUnavailable

pytestmark = pytest.mark.redis
PROVEN = {"proof_request_probability": 1.0, "proof_missing_penalty": 10**6}
TERMS = ("GetSession", "RelayMiningDifficultyAtHeight", "ComputeUnitsPerRelayAtHeight", "ParamsAtHeight")


def silent_about(made, monkeypatch, methods):
    """Let no node answer some queries."""
    real = made.client._ask_node

    async def ask(channel, asked, request, height=0):
        if asked.endswith(methods):
            raise ChainUnavailable(f"no answer to {asked}")
        return await real(channel, asked, request, height)

    monkeypatch.setattr(made.client, "_ask_node", ask)


@pytest.mark.parametrize("at", [5, 11, 13])
@pytest.mark.parametrize("methods", [TERMS, *((method,) for method in TERMS)], ids=lambda methods: methods[-1][:9])
async def test_sessions_are_claimed_and_proven_though_no_node_states_their_terms_after_a_restart(
    redis, tmp_path, monkeypatch, methods, at
):
    async with mine(redis, tmp_path, proof_params=PROVEN) as alice:
        header = alice.header()
        rows = alice.relays(header, 5)
        await alice.record(rows)
        await alice.to(4)
        alice.skip(at - 1)
        with monkeypatch.context() as patched:
            silent_about(alice, patched, methods)
            alice.start()
            await alice.to(16)
            assert alice.claim(header).root_hash == slow_root(rows)
            await alice.to(20)
        await alice.to(24)
        assert unharmed(alice, header)


async def test_so_do_those_that_a_standby_recorded(alice, monkeypatch):
    header = await alice.recorded(5)
    with another(alice) as other:
        await follow(other).round()
        silent_about(alice, monkeypatch, TERMS)
        other.epoch += 1
        other.start()
        await other.to(16)
        assert other.claim(header) is not None


async def test_relays_by_several_terms_are_not_claimed_by_any_of_them_before_the_chain_states_which(alice, monkeypatch):
    header = await alice.recorded(5)
    await alice.to(4)
    alice.relay_store.file(10)._database.execute("UPDATE validation SET terms='several'")
    with monkeypatch.context() as patched:
        silent_about(alice, patched, TERMS)
        alice.start()
        await alice.to(13)
        assert alice.miner.sessions[header.session_id].terms is None
    await alice.to(22)
    assert unharmed(alice, header)
