"""Whom the relayer refuses by what the chain says, and what happens to relays when it is full or its client leaves."""

import asyncio
from dataclasses import replace

import pytest

from metric_growth import Growth
from pocket.api.relayminer import Recording
from pocket.redis_store.log_records import WalRecord
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.relay_recorder import RecorderLimits, RelayRecorder
from pocket.redis_store.write_ahead_log import WriteAheadLog
from pocket_localnet.hydration import hydrate
from pocket_relayer.limits.rejection import Rejected, RejectionReason
from pocket_relayer.pipeline.admission import Admission
from pocket_relayer.pipeline.relay import Transport, TransportInfo
from relays import relaying
from transports import consumed
from world import World, address, key

pytestmark = pytest.mark.redis


def staked(*rows):
    """Suppliers of a genesis with the services of each."""
    return [{"operator": address(n), "owner": address(n), "stake": 10**9, "services": list(s)} for n, s in rows]


SERVICES = [
    {"id": name, "name": name, "compute_units_per_relay": 100, "owner": address("owner")} for name in ("eth", "other")
]


async def refusal(relayer, request):
    """Return the rejection of a request by the pipeline."""
    with pytest.raises(Rejected) as caught:
        await relayer.pipeline.handle(request.encode(), TransportInfo(Transport.HTTP, {}))
    return caught.value.reason


async def test_only_the_suppliers_of_the_session_serve_it(redis, tmp_path):
    async with relaying(redis, tmp_path, num_suppliers_per_session=1) as relayer:
        relayer.keys[address("bob")] = key("bob")
        session = hydrate(relayer.chain.state, relayer.chain.block_hash, relayer.world.application("eth"), "eth", 0)
        (member,) = [s.operator_address for s in session.suppliers]
        (outsider,) = {address("alice"), address("bob")} - {member}
        assert await refusal(relayer, relayer.request(supplier=outsider)) is RejectionReason.SUPPLIER_NOT_IN_SESSION
        assert await relayer.leaves(supplier=outsider) == []
        assert relayer.backend.requests == []
        assert (await relayer.send(relayer.request(supplier=member)))[0] == 200


async def test_a_supplier_serves_no_service_that_it_did_not_stake_for(redis, tmp_path):
    suppliers = staked(("alice", ["other"]), ("bob", ["eth"]))
    async with relaying(redis, tmp_path, services=SERVICES, suppliers=suppliers) as relayer:
        relayer.keys[address("bob")] = key("bob")
        assert await refusal(relayer, relayer.request()) is RejectionReason.WRONG_SERVICE
        assert (await relayer.send(relayer.request(supplier=address("bob"))))[0] == 200


@pytest.mark.parametrize(("limit", "reason"), [({"other"}, RejectionReason.WRONG_SERVICE), ({"eth"}, None)])
async def test_a_supplier_that_is_limited_to_services_serves_no_other(redis, tmp_path, limit, reason):
    async with relaying(redis, tmp_path) as relayer:
        limits = {address("alice"): frozenset(limit)}
        relayer.pipeline.admission = Admission(relayer.cache, lambda: relayer.height[0], lambda: 0.0, lambda: limits)
        if reason is None:
            assert (await relayer.send(relayer.request()))[0] == 200
        else:
            assert await refusal(relayer, relayer.request()) is reason


async def test_an_unknown_supplier_is_inactive(redis, tmp_path):
    async with relaying(redis, tmp_path, suppliers=staked(("bob", ["eth"]))) as relayer:
        assert await refusal(relayer, relayer.request()) is RejectionReason.SUPPLIER_INACTIVE


async def test_a_session_is_judged_by_the_target_of_its_own_start(redis, tmp_path):
    """In the grace period a session's relays are mined by its target, whatever the next session's is."""
    async with relaying(redis, tmp_path) as relayer:
        header = relayer.header()
        while relayer.chain.height < 11:
            relayer.chain.step()
        relayer.height[0] = 11
        state, asked = relayer.chain.state, []
        difficulty = relayer.cache.difficulty

        async def noted(service_id, height):
            asked.append((service_id, height))
            return await difficulty(service_id, height)

        relayer.pipeline.admission._contexts._chain.difficulty = noted
        assert state.height == 11
        assert (await relayer.send(relayer.request(header=header)))[0] == 200
        assert asked == [("eth", 1)]


@pytest.fixture
async def writable(redis):
    """Redis takes writes again at the end."""
    yield
    await redis.client_unpause()


async def waiting_to_be_recorded(relayer):
    """Start a relay whose backend has answered while Redis accepts no writes.

    Returns its task, and the future of its recording once Redis holds back the append.
    """
    submitted = asyncio.get_running_loop().create_future()

    def submit(record, submit=relayer.recorder.submit):
        done = submit(record)
        submitted.set_result(done)
        return done

    relayer.recorder.submit = submit
    relayer.backend.gate = asyncio.Event()
    task = asyncio.create_task(relayer.pipeline.handle(relayer.request().encode(), TransportInfo(Transport.HTTP, {})))
    await relayer.backend.asked.wait()
    await relayer.redis.client_pause(60_000, all=False)
    relayer.backend.gate.set()
    async with asyncio.timeout(10):
        done = await submitted
        while not (await relayer.redis.info("clients"))["blocked_clients"]:
            pass  # the relayer's tasks go on while Redis answers
    return task, done


async def test_a_relay_is_recorded_though_its_client_leaves_while_it_is(redis, tmp_path, writable):
    async with relaying(redis, tmp_path, recording=Recording.STRICT) as relayer:
        grown = Growth()
        task, recorded = await waiting_to_be_recorded(relayer)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not recorded.done()
        await redis.client_unpause()
        await relayer.recorder.drain()
        await recorded
        assert len(await relayer.leaves()) == 1
        assert grown.of("pocket_relayer_relays_mined_total", service="eth") == 1
        assert await consumed(relayer) == 100, "what is mined stays charged"


async def test_strict_recording_answers_only_when_the_relay_is_in_the_ledger(redis, tmp_path, writable):
    async with relaying(redis, tmp_path, recording=Recording.STRICT) as relayer:
        task, recorded = await waiting_to_be_recorded(relayer)
        assert not task.done()
        assert not recorded.done()
        await redis.client_unpause()
        await task
        assert len(await relayer.leaves()) == 1


@pytest.mark.parametrize("why", ["queue", "bytes", "memory"])
async def test_a_full_relayer_sheds_relays_before_it_works_for_them(redis, tmp_path, why):
    async with relaying(redis, tmp_path) as relayer:
        limits = {"queue": {"queue": 1}, "bytes": {"queue_bytes": 1}, "memory": {"memory_high_water_mark": 0.0}}[why]
        log = WriteAheadLog(tmp_path / "another log", "w")
        # Nobody empties its queue.
        full = RelayRecorder(redis, RedisKeys("relayer-test"), log, RecorderLimits(**limits))
        if why != "memory":
            header = relayer.header()
            relay = World().relay(header, "alice", 1)
            waiting = full.submit(
                WalRecord(address("alice"), header.session_id, header.encode(), relay, header.session_end_block_height)
            )
        relayer.pipeline._recording.recorder = full
        assert await refusal(relayer, relayer.request()) is RejectionReason.OVERLOADED
        status, headers, _ = await relayer.send(relayer.request())
        assert (status, int(headers["Retry-After"]) >= 1) == (503, True)
        assert relayer.backend.requests == []
        assert await consumed(relayer) == 0
        if why != "memory":
            waiting.cancel()
        log.close()


async def test_a_broken_signature_charges_nobody(redis, tmp_path):
    async with relaying(redis, tmp_path) as relayer:
        assert (
            await refusal(relayer, replace(relayer.request(), signature=b"\x00" * 199))
            is RejectionReason.INVALID_SIGNATURE
        )
        await relayer.budgets.drain()
        assert await consumed(relayer) == 0
