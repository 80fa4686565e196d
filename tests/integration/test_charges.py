"""Whether a relay stays charged, by how it ends: what was not served is refunded, what may still be mined is not."""

import asyncio
import contextlib

import pytest
from aiohttp import web
from h2.events import PingAckReceived

from hostile_clients import held, until
from http2_client import Http2Client
from pocket.redis_store.store_errors import LogUnavailable, QueueFull, RedisUnavailable, SessionClosed
from pocket_relayer.limits.rejection import Rejected, RejectionReason
from pocket_relayer.pipeline.relay import Transport, TransportInfo
from relays import listening, relaying
from transports import consumed

pytestmark = pytest.mark.redis
PRICE = 100


def handled(relayer, request=None):
    """Start a relay without a client's connection."""
    request = request or relayer.request()
    return asyncio.create_task(relayer.pipeline.handle(request.encode(), TransportInfo(Transport.HTTP, {})))


async def charged(relayer):
    """Wait until the only relay is charged."""
    async with asyncio.timeout(10):
        while await consumed(relayer) != PRICE:
            pass  # each query gives way to the relayer's tasks


async def left(relayer):
    """Return what is charged once every refund was made."""
    await relayer.budgets.drain()
    return await consumed(relayer)


@pytest.mark.parametrize("validation", ["eager", "optimistic"])
@pytest.mark.parametrize("end", ["cancelled", "too large", "refused"])
async def test_a_relay_that_was_charged_before_its_response_failed_is_refunded(redis, tmp_path, validation, end):
    async with relaying(redis, tmp_path, service={"validation": validation}) as relayer:
        relayer.backend.gate = asyncio.Event()
        task = handled(relayer)
        await relayer.backend.asked.wait()
        await charged(relayer)
        relayer.backend.answer = (503, {}, b"") if end == "refused" else (200, {}, b"x" * 200_000)
        if end == "cancelled":
            task.cancel()
        relayer.backend.gate.set()
        with pytest.raises(asyncio.CancelledError if end == "cancelled" else Rejected):
            await task
        assert await left(relayer) == 0
        assert await relayer.leaves() == []
        relayer.backend.answer = (200, {}, b"{}")
        await handled(relayer)
        assert await left(relayer) == PRICE, "the same request may come again, and is paid"


@pytest.mark.parametrize(
    ("error", "reason", "kept"),
    [
        (QueueFull("full"), RejectionReason.OVERLOADED, 0),
        (SessionClosed("closed"), RejectionReason.SESSION_CLOSED, 0),
        (LogUnavailable("no space"), RejectionReason.OVERLOADED, 0),
        (RedisUnavailable("no answer"), RejectionReason.NOT_RECORDED, PRICE),  # the write-ahead log has it
    ],
)
async def test_a_relay_that_is_not_recorded_is_refunded_unless_it_may_still_be_mined(
    redis, tmp_path, error, reason, kept
):
    async with relaying(redis, tmp_path) as relayer:

        def submit(_):
            if isinstance(error, QueueFull):
                raise error
            done = asyncio.get_running_loop().create_future()
            done.set_exception(error)
            return done

        relayer.recorder.submit = submit
        with pytest.raises(Rejected) as rejected:
            await handled(relayer)
        assert rejected.value.reason is reason
        assert await left(relayer) == kept


async def test_a_stream_that_is_not_authorized_is_closed_while_it_still_comes(redis, tmp_path):
    """In optimistic mode the backend streams before the signature is found to be wrong."""
    gone = asyncio.Event()

    async def endless(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            with contextlib.suppress(ConnectionError):
                while True:
                    await response.write(b"data: 1\n")
                    await asyncio.sleep(0.01)
        finally:
            gone.set()

    async with listening(endless) as url:
        service = {"validation": "optimistic", "backends": {"jsonRpc": {"urls": [url], "timeoutSeconds": 60}}}
        async with relaying(redis, tmp_path, service=service) as relayer:
            validated, forwarded = relayer.pipeline.admission.validate, asyncio.Event()
            forward = relayer.pipeline._forward

            async def slow(*arguments):
                await forwarded.wait()
                return await validated(*arguments)

            async def noted(*arguments):
                try:
                    return await forward(*arguments)
                finally:
                    forwarded.set()

            relayer.pipeline.admission.validate, relayer.pipeline._forward = slow, noted
            with pytest.raises(Rejected):
                await handled(relayer, relayer.request(signature=b"\0" * 199))
            async with asyncio.timeout(10):
                await gone.wait()
            assert await left(relayer) == 0


@pytest.mark.parametrize("validation", ["eager", "optimistic"])
@pytest.mark.parametrize("end", ["reset", "gone"])
async def test_a_client_of_http2_that_leaves_after_its_charge_uses_no_backend_for_nothing(
    redis, tmp_path, validation, end
):
    async with relaying(redis, tmp_path, service={"validation": validation}) as relayer:
        relayer.backend.gate = asyncio.Event()
        client = await Http2Client.dial(relayer)
        number = client.begin(headers=[("rpc-type", "3")])
        client.h2.send_data(number, relayer.request().encode(), end_stream=True)
        client.send()
        await relayer.backend.asked.wait()
        await charged(relayer)
        if end == "reset":
            client.h2.reset_stream(number)
            client.h2.ping(b"12345678")
            client.send()
            await client.read(lambda event: isinstance(event, PingAckReceived))
        else:
            client.writer.close()
            await until(lambda: not relayer.connections.open)
        relayer.backend.gate.set()
        await until(lambda: held(relayer) == 0)
        assert await left(relayer) == PRICE
        assert len(await relayer.leaves()) == 1
        client.writer.close()
