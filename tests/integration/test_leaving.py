"""A supplier whose key is taken away: refused at once, and told as leaving until nothing of it is on its way."""

import asyncio
import contextlib

import pytest

from pocket_relayer.process.reports import WorkerReport, summary
from relays import listening, relaying
from transports import Stream, all_transports, connected, frame
from world import address

pytestmark = pytest.mark.redis
ALICE = address("alice")


async def until(check):
    async with asyncio.timeout(10):
        while not check():  # noqa: ASYNC110 - lets the relayer's tasks go on
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("validation", ["eager", "optimistic"])
async def test_a_relay_at_the_backend_is_on_its_way_until_it_is_recorded(redis, tmp_path, validation):
    async with relaying(redis, tmp_path, service={"validation": validation}) as relayer:
        relayer.backend.gate = asyncio.Event()
        sending = asyncio.create_task(relayer.send(relayer.request()))
        await relayer.backend.asked.wait()
        relayer.keys.clear()
        assert relayer.pipeline.in_flight.suppliers == {ALICE}
        assert (await relayer.send(relayer.request()))[0] == 503
        relayer.backend.gate.set()
        assert (await sending)[0] == 200
        assert len(await relayer.leaves()) == 1
        assert relayer.pipeline.in_flight.suppliers == set()


async def test_a_relay_that_fails_is_not_on_its_way_any_more(redis, tmp_path):
    async with relaying(redis, tmp_path) as relayer:
        relayer.backend.answer = (500, {}, b"no")
        await relayer.send(relayer.request())
        await relayer.send(b"no relay")
        assert relayer.pipeline.in_flight.suppliers == set()


@contextlib.asynccontextmanager
async def streaming(redis, folder, gate):
    """Start a relayer whose backend answers in two pieces, the second once the gate is open."""
    stream = Stream([b"data: 1\n", b"data: 2\n"], gate)
    async with listening(stream.handle) as url:
        service = {"backends": {"jsonRpc": {"urls": [url], "timeoutSeconds": 10}}}
        async with relaying(redis, folder, service=service) as relayer:
            yield relayer


async def test_a_stream_is_on_its_way_to_its_end(redis, tmp_path):
    gate = asyncio.Event()
    async with streaming(redis, tmp_path, gate) as relayer:
        async with relayer.http.post(relayer.url, data=relayer.request().encode()) as answer:
            assert relayer.pipeline.in_flight.suppliers == {ALICE}
            gate.set()
            await answer.read()
        assert len(await relayer.leaves()) == 1
        await until(lambda: relayer.pipeline.in_flight.suppliers == set())


async def test_a_stream_whose_gateway_leaves_is_not_on_its_way_any_more(redis, tmp_path):
    gate = asyncio.Event()
    async with streaming(redis, tmp_path, gate) as relayer:
        answer = await relayer.http.post(relayer.url, data=relayer.request().encode())
        answer.close()
        gate.set()  # who has left is met when something is to be sent
        await until(lambda: relayer.pipeline.in_flight.suppliers == set())


async def test_a_connection_ends_with_its_supplier_and_is_on_its_way_until_then(redis, tmp_path):
    async with all_transports(redis, tmp_path) as (relayer, sockets), connected(relayer) as socket:
        await socket.send_bytes(frame(relayer, b"subscribe").encode())
        await asyncio.wait_for(sockets.subscribed.wait(), 5)
        assert relayer.pipeline.in_flight.suppliers == {ALICE}
        relayer.keys.clear()
        message = await socket.receive(5)
        assert socket.close_code == 4001
        assert str(message.extra).startswith("the supplier is not served here any more (supplier_not_found ")
        sockets.push.put_nowait(None)
        await until(lambda: relayer.pipeline.in_flight.suppliers == set())


def report(worker, *addresses, leaving=()):
    return WorkerReport(worker, worker, "k", 5, 0, addresses=list(addresses), leaving=list(leaving))


@pytest.mark.parametrize(
    ("reports", "loaded", "leaving", "complete"),
    [
        ([report(1, "a", "b"), report(2, "a", "b")], ["a", "b"], [], True),
        ([report(1, "a", "b"), report(2, "a")], ["a"], ["b"], True),
        ([report(1, "a"), report(2, "a", leaving=["b"])], ["a"], ["b"], True),
        ([report(1, "a", leaving=["b"])], [], ["a", "b"], False),
        ([], [], [], False),
    ],
)
def test_a_pod_tells_whom_it_may_still_record_for_until_no_worker_does(reports, loaded, leaving, complete):
    found = summary(reports, 2)
    assert (found["addresses"], found["leaving"], found["complete"]) == (loaded, leaving, complete)
