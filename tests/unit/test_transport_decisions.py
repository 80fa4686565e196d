"""What a request is answered with whatever carried it, and when a client that still sends is dropped."""

import asyncio
import gzip
import json
from types import SimpleNamespace

import pytest

from pocket.api.relayminer import ResponseCompression
from pocket_relayer.limits.memory_budget import MemoryBudget
from pocket_relayer.limits.rejection import Rejected, RejectionReason
from pocket_relayer.pipeline.pipeline import RelayResult, StreamedResult
from pocket_relayer.pipeline.relay import Transport
from pocket_relayer.transports import grpc_relays, lingering_close
from pocket_relayer.transports.client_timeouts import ClientTimeouts
from pocket_relayer.transports.http1_messages import encode_response_head
from pocket_relayer.transports.lingering_close import LINGER_BYTES, LingeringClose
from pocket_relayer.transports.replies import IncomingRequest, OutgoingResponse
from pocket_relayer.transports.request_router import Probes, RequestRouter


class Pipeline:
    """Answers each relay with what the test sets, and notes how it was asked."""

    def __init__(self, result=None):
        self.result, self.asked, self.rejections = result, [], []

    async def handle(self, body, caller, *, streams=False):
        self.asked.append((body, caller.transport, streams))
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def count_rejection(self, rejected, caller):
        self.rejections.append((rejected.reason, caller.transport))


PROBES = Probes(lambda: {"v": 1}, lambda: None, {"eth": {"ready": True}, "sol": {"ready": False}}.get, lambda: False)


def request(method="POST", path="/", on_served=lambda: None, **headers):
    async def read():
        return b"relay"

    named = {name.replace("_", "-"): value for name, value in headers.items()}
    reservation = MemoryBudget(lambda: 0.0).connection("1.2.3.4").reserve()
    return IncomingRequest(method, path, named, read, reservation, on_served, None)


async def answered(pipeline, asked, probes=PROBES, **compression):
    router = RequestRouter(pipeline, probes, lambda: ResponseCompression(**compression))
    return await router.answer(asked)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("path", "problem", "draining", "status", "body"),
    [
        ("/health", "down", True, 200, {"v": 1}), ("/healthz?x", None, False, 200, {"v": 1}),
        ("/ready", None, False, 200, {"ready": True, "v": 1}),
        ("/ready?x", "down", False, 503, {"ready": False, "problem": "down", "v": 1}),
        ("/ready", None, True, 503, {"ready": False, "problem": "draining", "v": 1}),
        ("/ready/eth", "down", True, 200, {"ready": True}), ("/ready/sol", None, False, 503, {"ready": False}),
    ],
)  # fmt: skip
async def test_a_probe_has_its_status_and_reaches_no_relay(method, path, problem, draining, status, body):
    probes = Probes(PROBES.health, lambda: problem, PROBES.service_ready, lambda: draining)
    pipeline = Pipeline()
    reply = await answered(pipeline, request(method, path), probes)
    assert (reply.status, json.loads(reply.body), pipeline.asked) == (status, body, [])
    unknown = await answered(pipeline, request(method, "/ready/other"), probes)
    assert (unknown.status, json.loads(unknown.body)["code"]) == (404, "unknown_service")


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "application/json"), ("*/*", "application/json"), ("a/b, c/d", "application/json"),
        ("application/octet-stream", "application/octet-stream"), ("\xe9", "application/json"),
    ],
)  # fmt: skip
async def test_a_relay_is_answered_once_in_the_type_that_its_client_names(accept, content_type):
    served = []
    pipeline, asked = Pipeline(RelayResult(b"signed", 2)), request(on_served=lambda: served.append(1), Accept=accept)
    reply = await answered(pipeline, asked)
    assert (reply.status, reply.headers, reply.body) == (
        200, {"Content-Type": content_type, "Backend-Retries": "2"}, b"signed",
    )  # fmt: skip
    assert (pipeline.asked, served) == ([(b"relay", Transport.HTTP, True)], [1])
    pipeline.result = RelayResult(b"signed", 0)
    assert "Backend-Retries" not in (await answered(pipeline, asked)).headers


@pytest.mark.parametrize(
    ("size", "least", "encoding", "packed"),
    [
        (100, 100, "gzip", True), (99, 100, "gzip", False), (100, 100, "br, *;q=0.1", True),
        (100, 100, "gzip;q=0, *", False), (100, 100, "", False), (200_000, 100, "GZIP; q=1", True),
    ],
)  # fmt: skip
async def test_a_response_is_compressed_if_it_is_large_enough_and_accepted(size, least, encoding, packed):
    asked = request(Accept_Encoding=encoding)
    reply = await answered(Pipeline(RelayResult(bytes(size), 0)), asked, enabled=True, minBytes=least)
    assert (gzip.decompress(reply.body) if packed else reply.body) == bytes(size)
    assert (reply.headers.get("Content-Encoding"), reply.headers.get("Vary")) == (
        ("gzip", "Accept-Encoding") if packed else (None, None)
    )  # fmt: skip
    off = await answered(Pipeline(RelayResult(bytes(size), 0)), asked, enabled=False, minBytes=least)
    assert off.body == bytes(size)


async def test_what_fails_is_counted_once_and_names_no_cause():
    pipeline = Pipeline(RuntimeError("secret"))
    reply = await answered(pipeline, request())
    assert (reply.status, b"secret" in reply.body) == (500, False)
    assert pipeline.rejections == [(RejectionReason.INTERNAL, Transport.HTTP)]
    pipeline.result = Rejected(RejectionReason.RATE_LIMITED, "too many")
    reply = await answered(pipeline, request())
    assert (reply.status, reply.headers["Retry-After"], json.loads(reply.body)["error"]) == (429, "1", "too many")
    reply = await answered(pipeline, request("BREW"))
    assert (reply.status, "POST" in reply.headers["Allow"], len(pipeline.rejections)) == (405, True, 2)
    streamed = StreamedResult(207, {"X": ("1",)}, "pieces")
    reply = await answered(Pipeline(streamed), request())
    assert (reply.status, reply.headers["X"], reply.pieces, reply.body) == (207, "1", "pieces", b"")


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("close", [False, True])
def test_a_response_says_how_long_it_is_and_whether_another_follows(chunked, close):
    head = encode_response_head(OutgoingResponse(200, {"X": "1"}, b"12345"), chunked=chunked, close=close)
    assert (b"Transfer-Encoding: chunked" in head, b"Content-Length: 5" in head) == (chunked, not chunked)
    assert (b"Connection: close" in head) is close
    assert encode_response_head(OutgoingResponse(200, {"X": "1"}, b"")).count(b"Content-Length: 0") == 1


class Socket:
    """A transport and the place of its connection."""

    def __init__(self):
        self.did = []

    def __getattr__(self, name):
        return lambda *_: self.did.append(name) or None


@pytest.mark.parametrize(
    ("arrives", "aborted_after"),
    [([0], 1), ([5, 0], 2), ([5, 5, 5, 5, 5, 5, 5], 6), ([LINGER_BYTES, 0], 2), ([LINGER_BYTES + 1], 0)],
)
async def test_a_client_that_still_sends_is_read_for_some_periods_and_within_a_limit(arrives, aborted_after):
    socket = Socket()
    closing = LingeringClose(socket, socket, ClientTimeouts(linger_seconds=3600.0))
    socket.is_closing = lambda: False
    closing.start()
    assert socket.did == ["set_protocol", "linger", "write_eof", "resume_reading"]
    periods = 0
    for size in arrives:
        if size:
            closing.data_received(bytes(size))
        if "abort" in socket.did:
            break
        closing._timer.cancel()
        closing._check()
        periods += 1
        if "abort" in socket.did:
            break
    assert (socket.did.count("abort"), periods) == (1, aborted_after)
    assert lingering_close._PERIODS == 6
    closing.connection_lost(None)
    assert closing._timer.cancelled()
    assert socket.did[-1] == "lost"
    await asyncio.sleep(0)


@pytest.mark.parametrize("result", [RelayResult(b"answer"), Rejected(RejectionReason.OVER_BUDGET, "no"), KeyError()])
async def test_a_connection_is_proven_by_a_grpc_relay_that_was_served_and_by_no_other(result, monkeypatch):
    async def read_message(*_, **__):
        return b"relay"

    monkeypatch.setattr(grpc_relays, "_read_message", read_message)
    proven, pipeline = [], Pipeline(result)
    pipeline.registry = SimpleNamespace(max_body_bytes=100)
    asked = request(path=grpc_relays.METHOD, on_served=lambda: proven.append(True))
    body, trailers = await grpc_relays._call(pipeline, asked, Transport.GRPC)
    assert proven == [True] * isinstance(result, RelayResult)
    assert (bool(body), trailers["grpc-status"]) == ((True, "0") if proven else (False, trailers["grpc-status"]))
