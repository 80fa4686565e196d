"""What a backend's failure costs: the deadline, slots and connections of a relay, and no request sent twice unasked."""

import asyncio
import contextlib
from types import SimpleNamespace

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from pocket.api.services import ServiceSpec
from pocket.protocol.relays.envelope import HttpRequest
from pocket_relayer.backends.http_calls import Clients, call_http
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
