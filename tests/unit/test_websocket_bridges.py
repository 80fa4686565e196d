"""What the messages of a WebSocket cost: each is recorded or refunded once, and none is of another service."""

import asyncio
import contextlib
from collections import Counter
from types import SimpleNamespace

import pytest
from aiohttp import WSMsgType

from pocket.api.services import ServiceSpec
from pocket.protocol.relays.envelope import HttpRequest
from pocket.protocol.relays.messages import RelayRequest, SessionHeader
from pocket_relayer.limits.rejection import Rejected, RejectionReason
from pocket_relayer.pipeline.in_flight import InFlight
from pocket_relayer.pipeline.metering import Metered
from pocket_relayer.pipeline.relay import AdmissibleRelay, Transport, TransportInfo
from pocket_relayer.transports.client_timeouts import ClientTimeouts
from pocket_relayer.transports.websocket import Bridge

CLOSED = SimpleNamespace(type=WSMsgType.CLOSE, data=1000, extra="")


class Socket:
    """One side of a connection: what it receives is told, and what it is sent is noted."""

    def __init__(self):
        self.received, self.sent, self.close_code = asyncio.Queue(), asyncio.Queue(), None

    async def receive(self):
        return await self.received.get()

    async def send_frame(self, payload, kind):
        await self.sent.put(payload)

    async def close(self, **_):
        return

    def tell(self, data):
        self.received.put_nowait(SimpleNamespace(type=WSMsgType.BINARY, data=data))


class Memory:
    on_evict = None

    def reserve(self):
        return self

    def acquire(self, size):
        return

    def close(self):
        return


class Gateway:
    """A client of one bridge, whose relays are named by supplier and session, and what the pipeline is asked for."""

    def __init__(self, *, paid=True):
        self.paid, self.charged, self.refunded, self.recorded, self.rejected = paid, [], [], [], []
        self.client, self.backend = Socket(), Socket()
        self.in_flight, self.admitted = InFlight(), SimpleNamespace(is_over=lambda height: False)
        self.simulations = SimpleNamespace(limit=lambda key_id: contextlib.nullcontext())
        self.services = {name: self._service(name) for name in ("eth", "base")}
        self.served, self.poll_seconds = True, 1000.0

    def _service(self, name):
        fields = {"id": name, "backends": {"webSocket": {"urls": ["ws://b"]}}}
        return SimpleNamespace(service=ServiceSpec.model_validate(fields), dial=self._dial)

    def serves(self, supplier):
        return self.served

    def height(self):
        return 15

    async def _dial(self, *_):
        return self.backend

    def parse(self, data, caller):
        supplier, session, service = data.decode().split()
        header = SessionHeader("app", service, session, 1, 10)
        request = RelayRequest(header, b"", supplier, data)
        backends = self.services[service]
        return AdmissibleRelay(request, header, HttpRequest("", "", {}, data), "webSocket", None, backends, caller)

    async def admit(self, relay):
        return self.admitted, self._charge(relay)

    async def charge_event(self, relay):
        return self._charge(relay)

    def _charge(self, relay):
        self.charged.append(relay.header.session_id)
        return Metered(relay.header.session_id if self.paid else None, paid=self.paid)

    def refund(self, metered):
        if metered.charge is not None:
            self.refunded.append(metered.charge)

    async def record_event(self, relay, admitted, metered, payload):
        if metered.paid:
            self.recorded.append(metered.charge)
        return SimpleNamespace(encode=lambda: payload)

    def count_rejection(self, rejected, caller, relay=None):
        self.rejected.append(rejected.reason)

    @contextlib.asynccontextmanager
    async def connected(self):
        connection = SimpleNamespace(memory=Memory(), trust=lambda: None, abort=lambda: None)
        incoming = SimpleNamespace(unfinished=None, served=lambda: None)
        bridge = Bridge(
            self, self.services["eth"], TransportInfo(Transport.WEB_SOCKET, {}), self.client, self.poll_seconds,
            connection, incoming, ClientTimeouts(), contextlib.ExitStack(),
        )  # fmt: skip
        async with asyncio.timeout(10):
            run = asyncio.create_task(bridge.run())
            yield run
            await run
        # Whatever happens, a charge is of a recorded relay, refunded, or kept because its client left.
        assert not Counter(self.recorded) + Counter(self.refunded) - Counter(self.charged)

    async def ask(self, text):
        self.client.tell(text.encode())
        assert await self.backend.sent.get() == text.encode()

    async def answer(self):
        self.backend.tell(b"answer")
        assert await self.client.sent.get() == b"answer"


@pytest.mark.parametrize("paid", [True, False])
async def test_responses_take_the_charges_of_their_requests_and_events_are_charged_if_their_request_was(paid):
    gateway = Gateway(paid=paid)
    async with gateway.connected():
        await gateway.ask("alice one eth")
        await gateway.ask("alice one eth")
        for _ in range(4):
            await gateway.answer()
        gateway.client.received.put_nowait(CLOSED)
    assert gateway.charged == ["one"] * (4 if paid else 2)
    assert (gateway.recorded, gateway.refunded) == (["one"] * 4 * paid, [])


@pytest.mark.parametrize("following", ["alice two eth", "bob one eth"])
async def test_requests_that_no_response_can_belong_to_any_more_are_refunded(following):
    gateway = Gateway()
    async with gateway.connected():
        for _ in range(3):
            await gateway.ask("alice one eth")
        await gateway.answer()
        await gateway.ask(following)
        assert (gateway.recorded, gateway.refunded) == (["one"], ["one", "one"])
        await gateway.answer()
        gateway.client.received.put_nowait(CLOSED)
    assert gateway.recorded == ["one", following.split()[1]]
    assert gateway.refunded == ["one", "one"]


@pytest.mark.parametrize("by_client", [True, False])
async def test_unanswered_requests_are_refunded_unless_their_client_ended_the_connection(by_client):
    gateway = Gateway()
    async with gateway.connected():
        await gateway.ask("alice one eth")
        await gateway.ask("alice one eth")
        (gateway.client if by_client else gateway.backend).received.put_nowait(CLOSED)
    assert gateway.refunded == ([] if by_client else ["one", "one"])
    assert not gateway.in_flight.any()


async def test_a_relay_of_another_service_reaches_neither_the_meter_nor_this_services_backend():
    gateway = Gateway()
    async with gateway.connected() as run:
        await gateway.ask("alice one eth")
        gateway.client.tell(b"alice two base")
        await asyncio.wait({run})
    assert gateway.charged == ["one"]
    assert (gateway.rejected, gateway.backend.sent.qsize()) == ([RejectionReason.SESSION_MISMATCH], 0)


async def test_a_request_that_is_rejected_ends_the_connection_without_a_charge():
    gateway = Gateway()

    async def refuse(relay):
        raise Rejected(RejectionReason.OVER_BUDGET, "no")

    gateway.admit = refuse
    async with gateway.connected():
        gateway.client.tell(b"alice one eth")
    assert (gateway.charged, gateway.rejected) == ([], [RejectionReason.OVER_BUDGET])


@pytest.mark.parametrize("over", [True, False])
async def test_a_connection_ends_with_its_session_and_its_supplier_and_what_was_not_answered_is_refunded(over):
    gateway = Gateway()
    gateway.poll_seconds = 0.001
    async with gateway.connected() as run:
        await gateway.ask("alice one eth")
        gateway.admitted.is_over, gateway.served = (lambda height: over), over
        await asyncio.wait({run})
    assert gateway.rejected == ([] if over else [RejectionReason.SUPPLIER_NOT_OURS])
    assert gateway.refunded == ["one"]


async def test_a_client_that_asks_on_without_waiting_for_answers_is_stopped():
    gateway = Gateway()
    async with gateway.connected() as run:
        for _ in range(1001):
            gateway.client.tell(b"alice one eth")
        await asyncio.wait({run})
    assert gateway.rejected == [RejectionReason.OVERLOADED]
    assert len(gateway.charged) == 1001
