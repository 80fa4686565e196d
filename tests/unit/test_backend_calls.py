"""What a backend's failure costs: the deadline, slots and connections of a relay, and no request sent twice unasked."""

import asyncio
import contextlib
import gzip
import zlib
from types import SimpleNamespace

import aiohttp
import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from pocket.api.services import ServiceSpec
from pocket.protocol.relays.envelope import HttpRequest, HttpResponse
from pocket_relayer.backends import http_calls
from pocket_relayer.backends import service as service_module
from pocket_relayer.backends.http_calls import Clients, call_http
from pocket_relayer.backends.response_bodies import ResponseBodyDecoder, plain_body
from pocket_relayer.backends.responses import BackendStream, RetryableBackendError
from pocket_relayer.backends.service import ServiceBackends
from pocket_relayer.backends.service_registry import ServiceRegistry
from pocket_relayer.limits.rejection import Rejected, RejectionReason
from raw import answer, raw_server, read_request

REQUEST = HttpRequest("POST", "/", {}, b"{}")


def service(*urls, **fields):
    backend = {"urls": urls or ("http://a",), **fields}
    return ServiceSpec.model_validate({"id": "eth", "backends": {"jsonRpc": backend}})


class Unused:
    """Clients of a backend that is never called, which note that they were closed."""

    def __init__(self, _):
        self.plain, self.closed = None, False

    async def close(self):
        self.closed = True


async def test_all_attempts_of_a_relay_share_its_time():
    backends = ServiceBackends(service("http://a", "http://b", "http://c", timeoutSeconds=10), lambda: 0.0, http=Unused)
    now, deadlines = [100.0], []

    async def call(*given):
        deadlines.append(given[6])
        now[0] += 3.0
        raise RetryableBackendError(Rejected(RejectionReason.BACKEND_FAILED, "no"), reached=False)

    backends._deadlines = SimpleNamespace(time=lambda: now[0], within=lambda left: contextlib.nullcontext())
    backends._call = call
    with pytest.raises(Rejected):
        await backends.forward("jsonRpc", REQUEST, {}, {})
    assert deadlines == [110.0] * (1 + backends.service.backends.json_rpc.max_retries)
    assert len(deadlines) > 1
    await backends.close()


async def test_a_relay_that_a_backend_did_not_answer_in_time_is_sent_to_no_other_one():
    backends, called = ServiceBackends(service("http://a", "http://b"), lambda: 0.0, http=Unused), []

    async def call(*_):
        called.append(backends.connections().used)
        raise TimeoutError

    backends._call = call
    with pytest.raises(Rejected) as caught:
        await backends.forward("jsonRpc", REQUEST, {}, {})
    assert (caught.value.reason, called) == (RejectionReason.BACKEND_TIMEOUT, [1])
    assert backends.connections().used == 0


async def test_a_stream_that_is_closed_twice_gives_its_slot_back_once():
    backends, closed = ServiceBackends(service(), lambda: 0.0, http=Unused), []

    async def close():
        closed.append(backends.connections().used)

    async def call(*_):
        return BackendStream(200, {}, None, close, 0.0)

    backends._call = call
    streams = [await backends.forward("jsonRpc", REQUEST, {}, {}, "app") for _ in range(2)]
    for used in (1, 1):
        await streams[0].close()
        assert backends.connections().used == used
    await streams[1].close()
    assert backends.connections().used == 0
    assert closed == [2, 1, 1], "given back after the connection was closed"


async def test_backends_of_a_former_configuration_are_closed_once_no_relay_uses_them():
    registry = ServiceRegistry([service()], lambda: 0.0, http=Unused)
    old = registry.get("eth")
    run = asyncio.create_task(registry.run())
    try:
        with old.used():
            registry.update([service("http://b")])
            for _ in range(20):
                await asyncio.sleep(0)
            assert not old.http.closed
        registry.update([service("http://c")])
        for _ in range(20):
            await asyncio.sleep(0)
        assert old.http.closed
    finally:
        run.cancel()
        await asyncio.wait({run})


@pytest.mark.parametrize(
    ("second", "requests"),
    [
        (b"", 3),  # it closed the connection as the request was on its way
        (b"HTTP/1.1 200 OK\r\nX: y\r\n", 2),  # it has handled the request
    ],
)
async def test_a_request_is_sent_again_only_if_a_kept_connection_ended_before_any_byte_of_a_response(second, requests):
    served = []

    async def serve(reader, writer):
        for reply in (answer(b"1"), second):
            if await read_request(reader) is None:
                return
            served.append(reply)
            writer.write(reply)
            await writer.drain()

    backend = service().backends.json_rpc
    headers = CIMultiDictProxy(CIMultiDict())
    opened = Clients.open(4)
    clients = Clients(opened.kept, opened.fresh)  # aiohttp's, which serve HTTPS
    async with raw_server(serve) as place:
        url = f"http://{place}"
        try:
            for number in range(2):
                with contextlib.ExitStack() as failing:
                    if number and second:
                        failing.enter_context(pytest.raises(RetryableBackendError))
                    await call_http(clients, backend, url, REQUEST, headers, 1 << 20, float("inf"))
            assert len(served) == requests
        finally:
            await opened.close()


class Answer:
    """A response whose head has arrived, and whose body is complete or comes in pieces."""

    def __init__(self, *pieces, status=200, headers=None, complete=None):
        self.status, self.headers, self.complete = status, headers or {}, complete
        self.pieces, self.closed = list(pieces), 0

    def signed_headers(self):
        return self.headers

    def complete_body(self):
        return self.complete

    async def read(self):
        return self.pieces.pop(0) if self.pieces else b""

    def close(self):
        self.closed += 1


class Held:
    """Memory of a relay that notes what it holds."""

    def __init__(self):
        self.sizes = []

    def acquire(self, size):
        self.sizes.append(size)


async def called(monkeypatch, given, limit=10, held=None):
    async def request(*_):
        return given

    monkeypatch.setattr(http_calls, "_request", request)
    headers = CIMultiDictProxy(CIMultiDict())
    return await call_http(
        None, service().backends.json_rpc, "http://a", REQUEST, headers, limit, float("inf"), held
    )  # fmt: skip


@pytest.mark.parametrize("size", [0, 9, 10, 11])
@pytest.mark.parametrize("whole", [True, False])
async def test_a_body_may_have_exactly_the_limit_and_all_of_it_is_counted(monkeypatch, size, whole):
    body, held = bytes(range(size)), Held()
    pieces = [body[:4], body[4:7], body[7:]] if not whole else []
    given = Answer(*filter(None, pieces), complete=body if whole else None)
    with pytest.raises(Rejected) if size > 10 else contextlib.nullcontext() as caught:
        assert (await called(monkeypatch, given, held=held)).body == body
    assert caught is None or caught.value.reason is RejectionReason.RESPONSE_TOO_LARGE
    assert (sum(held.sizes), given.closed) == (size, 1)


@pytest.mark.parametrize(
    ("status", "media", "streamed"),
    [
        (200, "text/event-stream", True), (206, "application/x-ndjson", True), (404, "Text/Event-Stream; a=b", True),
        (204, "text/event-stream", False), (304, "text/event-stream", False), (200, "application/json", False),
    ],
)  # fmt: skip
async def test_a_response_is_a_stream_by_its_media_type_unless_its_status_has_no_body(
    monkeypatch, status, media, streamed
):
    given = Answer(status=status, headers={"Content-Type": (media,)}, complete=b"")
    answered = await called(monkeypatch, given)
    assert isinstance(answered, BackendStream if streamed else HttpResponse)
    assert (answered.status, given.closed) == (status, 0 if streamed else 1)
    if streamed:
        await answered.close()
        assert given.closed == 1


@pytest.mark.parametrize(("status", "given_up"), [(199, True), (200, False), (499, False), (500, True), (600, True)])
async def test_only_a_final_status_below_500_is_a_response(monkeypatch, status, given_up):
    given = Answer(status=status, complete=b"")
    with pytest.raises(RetryableBackendError) if given_up else contextlib.nullcontext():
        assert (await called(monkeypatch, given)).status == status
    assert given.closed == 1


PACKED = gzip.compress(b"plain" * 9, mtime=0)
DECOMPRESSOBJ = zlib.decompressobj


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("cut", [1, len(PACKED) // 2, len(PACKED) - 1])
async def test_a_cut_off_body_fails_where_gzip_is_declared_and_is_kept_where_it_is_guessed(declared, cut):
    headers = {"Content-Encoding": ("gzip",)} if declared else {"Content-Type": ("text/plain",)}
    with pytest.raises(RetryableBackendError) if declared else contextlib.nullcontext():
        assert await plain_body(headers, PACKED[:cut], 100) == (headers, PACKED[:cut])


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("above", [0, 1])
def test_no_more_than_the_limit_and_one_byte_is_ever_unpacked(monkeypatch, members, above):
    unpacked, size = [], 20_000
    packed = gzip.compress(bytes(size), mtime=0) * members
    decoder = ResponseBodyDecoder(size * members - above)

    class Noting:
        def __init__(self):
            self.member = DECOMPRESSOBJ(wbits=31)

        def __getattr__(self, name):
            return getattr(self.member, name)

        def decompress(self, piece, most):
            plain = self.member.decompress(piece, most)
            unpacked.append(len(plain))
            assert len(plain) <= most <= size * members - above + 1 - sum(unpacked[:-1])
            return plain

    monkeypatch.setattr("zlib.decompressobj", lambda wbits: Noting())
    decoder._member = Noting()
    with pytest.raises(Rejected) if above else contextlib.nullcontext():
        assert len(decoder.feed(packed)) == size * members
    assert sum(unpacked) == size * members


async def test_configured_metadata_replaces_what_a_client_sends(monkeypatch):
    sent = []

    async def call_grpc(channel, method, request, metadata, *_):
        sent.append((method, metadata))
        return HttpResponse(200, {}, b"")

    monkeypatch.setattr(service_module, "call_grpc", call_grpc)
    spec = ServiceSpec.model_validate({
        "id": "eth", "backends": {"grpc": {"urls": ["grpc://a:1"], "headers": {"Pocket-Service": "ours", "key": "1"}}}
    })  # fmt: skip
    backends = ServiceBackends(spec, lambda: 0.0, http=Unused)
    request = HttpRequest("POST", "/a.B/C", {}, b"")
    await backends.forward("grpc", request, {}, {"Pocket-Service": "theirs", "Pocket-Supplier": "alice"})
    assert sent == [("/a.B/C", {"Pocket-Service": "ours", "key": "1", "Pocket-Supplier": "alice"})]
    await backends.close()


@pytest.mark.parametrize("error", [aiohttp.ClientError, OSError, TimeoutError, ValueError, None])
async def test_an_endpoint_whose_websocket_cannot_be_opened_gives_its_slot_back_at_once(error):
    spec = ServiceSpec.model_validate({"id": "eth", "backends": {"webSocket": {"urls": ["ws://a", "ws://b"]}}})
    backends, dialled = ServiceBackends(spec, lambda: 0.0, http=Unused), []

    async def ws_connect(url, **_):
        dialled.append((url, backends.connections().used))
        if error is not None:
            raise error
        return "socket"

    backends.http.kept = SimpleNamespace(ws_connect=ws_connect)
    with contextlib.ExitStack() as held:
        if error is None:
            assert await backends.dial({}, "app", held) == "socket"
            assert backends.connections().used == 1
        else:
            with pytest.raises(Rejected):
                await backends.dial({}, "app", held)
            assert sorted(dialled) == [("ws://a", 1), ("ws://b", 1)]
            assert backends.connections().used == 0
    assert backends.connections().used == 0
    await backends.close()
