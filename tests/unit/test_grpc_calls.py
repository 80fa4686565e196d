"""Calls of gRPC backends: what of an envelope becomes metadata, and calls that end without a response."""

import asyncio
import contextlib

import grpc
import pytest

from pocket.api.services import ServiceSpec
from pocket.protocol.relays.envelope import HttpRequest
from pocket_relayer.backends.framing import frame
from pocket_relayer.backends.grpc_calls import call_grpc, channel_to, metadata_of
from pocket_relayer.backends.responses import RetryableBackendError
from pocket_relayer.backends.service import ServiceBackends
from pocket_relayer.limits.rejection import Rejected, RejectionReason

ENVELOPES = {"no message": b"", "one message": frame(b"x"), "two messages": frame(b"x") + frame(b"y")}
UNSENDABLE = [{"X A": ("b",)}, {"X-A": ("a\nb",)}, {"X-A": ("\u00e9",)}, {"X-\u00e9": ("b",)}, {"X!": ("b",)}]


def request(headers, body=b""):
    return HttpRequest("POST", "/a/b", headers, body)


class Backend(grpc.GenericRpcHandler):
    """Answers each call once its gate is open, and counts the calls."""

    def __init__(self):
        self.calls, self.called, self.gate, self.fails = 0, asyncio.Event(), asyncio.Event(), False
        self.begins = False
        self.gate.set()

    def service(self, details):
        async def answer(messages, context):
            self.calls += 1
            self.called.set()
            await self.gate.wait()
            if self.begins:
                await context.send_initial_metadata((("begun", "yes"),))
            if self.fails:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "no")
            yield b"ok"

        return grpc.stream_stream_rpc_method_handler(answer)


@contextlib.asynccontextmanager
async def listening():
    handler, server = Backend(), grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield handler, f"grpc://127.0.0.1:{port}"
    finally:
        handler.gate.set()
        await server.stop(None)


@contextlib.asynccontextmanager
async def backend():
    async with listening() as (handler, url):
        channel = channel_to(url, 5, 1 << 20)
        try:
            yield handler, channel
        finally:
            handler.gate.set()
            await channel.close()


@pytest.mark.parametrize("body", ENVELOPES.values(), ids=ENVELOPES.keys())
@pytest.mark.parametrize("headers", [*UNSENDABLE, {"X-A-Bin": ("\u00e9",)}, {"X-A-Bin": ("?",)}])
async def test_headers_that_grpc_cannot_send_are_rejected_and_the_backend_is_not_called(headers, body):
    async with backend() as (handler, channel):
        with pytest.raises(Rejected) as caught:
            await call_grpc(channel, "/a/b", request(headers, body), {}, 5, 1 << 20)
        assert (caught.value.reason, handler.calls) == (RejectionReason.INVALID_REQUEST, 0)


async def test_a_call_that_ends_with_its_channel_is_a_failure_and_no_cancellation_of_the_relay():
    async with backend() as (handler, channel):
        handler.gate.clear()
        call = asyncio.create_task(call_grpc(channel, "/a/b", request({}, frame(b"x")), {}, 5, 1 << 20))
        await asyncio.wait_for(handler.called.wait(), 5)
        await channel.close()
        with pytest.raises(RetryableBackendError):
            await call


@pytest.mark.parametrize("begins", [False, True])
async def test_a_call_that_a_backend_began_to_answer_is_not_sent_to_another_one(begins):
    async with backend() as (handler, channel):
        handler.begins, handler.fails = begins, True
        if not begins:
            with pytest.raises(RetryableBackendError):
                await call_grpc(channel, "/a/b", request({}, frame(b"x")), {}, 5, 1 << 20)
            return
        found = await call_grpc(channel, "/a/b", request({}, frame(b"x")), {}, 5, 1 << 20)
        assert (found.headers["Grpc-Status"], found.headers["Begun"]) == (("14",), ("yes",))


async def test_a_cancelled_relay_cancels_its_call():
    async with backend() as (handler, channel):
        handler.gate.clear()
        call = asyncio.create_task(call_grpc(channel, "/a/b", request({}, frame(b"x")), {}, 5, 1 << 20))
        await asyncio.wait_for(handler.called.wait(), 5)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


@pytest.mark.parametrize(("attacker", "opened"), [("app2", False), ("app1", True)])
async def test_calls_that_a_backend_answers_with_unavailable_cost_other_applications_nothing(attacker, opened):
    async with listening() as (handler, url):
        fields = {"urls": [url], "unhealthyThreshold": 3, "maxRetries": 0}
        backends = ServiceBackends(ServiceSpec.model_validate({"id": "a", "backends": {"grpc": fields}}), lambda: 0.0)
        try:
            await backends.forward("grpc", request({}, frame(b"x")), {}, {}, "app1")
            handler.fails = True
            for _ in range(3):
                with pytest.raises(Rejected, match="unavailable"):
                    await backends.forward("grpc", request({}, frame(b"x")), {}, {}, attacker)
            assert handler.calls == 4
            assert (backends.state()["healthy"] == 0) is opened
        finally:
            await backends.close()


async def test_a_grpc_backend_that_nothing_reaches_is_taken_out_by_one_application():
    async with listening() as (_, url):
        pass
    fields = {"urls": [url], "unhealthyThreshold": 2, "maxRetries": 0}
    backends = ServiceBackends(ServiceSpec.model_validate({"id": "a", "backends": {"grpc": fields}}), lambda: 0.0)
    (endpoint,) = backends.pools["grpc"].endpoints
    endpoint.succeeded("app1")
    try:
        for _ in range(2):
            with pytest.raises(Rejected, match="unavailable"):
                await backends.forward("grpc", request({}, frame(b"x")), {}, {}, "app2")
        assert backends.state()["healthy"] == 0
    finally:
        await backends.close()


def test_metadata_follows_the_rules_for_header_fields_of_all_backends():
    headers = {
        "X-Forwarded-For": ("6.6.6.6",), "Forwarded": ("for=6.6.6.6",), "X-Real-Ip": ("6.6.6.6",),
        "X_Api_Key": ("mine",), "Pocket_Supplier": ("other",), "Pocket-Supplier": ("other",),
        "X-Http-Method-Override": ("DELETE",), "Connection": ("X-Hop",), "X-Hop": ("1",), "Grpc-Timeout": ("1S",),
        "User-Agent": ("mine",), "X-Kept": ("1", "2"), "X-Bytes-Bin": ("AAE",),
    }  # fmt: skip
    ours = {"X-Api-Key": "secret", "Pocket-Supplier": "s"}
    kept = [("x-kept", "1"), ("x-kept", "2"), ("x-bytes-bin", b"\0\1")]
    assert metadata_of(request(headers), ours) == [*kept, ("x-api-key", "secret"), ("pocket-supplier", "s")]


def test_metadata_is_limited_in_number():
    with pytest.raises(Rejected):
        metadata_of(request({f"H-{n}": ("v",) for n in range(257)}), {})
