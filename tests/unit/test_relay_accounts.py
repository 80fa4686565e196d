"""Each relay that was charged is recorded or refunded, whatever stage fails, and what is served is what is recorded."""

import asyncio
import contextlib
import hashlib
from types import SimpleNamespace

import pytest

from pocket.api.relayminer import Recording
from pocket.api.services import ServiceSpec
from pocket.keys.remote_signer import RemoteKey, SignerUnavailable
from pocket.protocol.relays.envelope import STREAM_DELIMITER, HttpResponse, decode_http_response
from pocket.protocol.relays.messages import SessionHeader, decode_relay, decode_relay_response
from pocket.protocol.sessions.windows import SharedParams, Windows
from pocket.redis_store.budgets import Charge
from pocket.redis_store.store_errors import LogUnavailable, QueueFull, RedisUnavailable, SessionClosed
from pocket_relayer.backends.responses import BackendResponse, BackendStream
from pocket_relayer.limits.rejection import Rejected, RejectionReason
from pocket_relayer.pipeline.authorization import Admitted
from pocket_relayer.pipeline.metering import Metered
from pocket_relayer.pipeline.pipeline import RelayPipeline, StreamedResult
from pocket_relayer.pipeline.recording import RelayRecording
from pocket_relayer.pipeline.relay import Transport, TransportInfo
from world import World, address, key

WORLD = World()
HEADER = SessionHeader(address("app eth"), "eth", "ab" * 32, 11, 20)
BODY = WORLD.request(HEADER, address("alice"), b'{"id":1}').encode()
WINDOWS = Windows.after(20, SharedParams())
EVERYTHING, NOTHING = b"\xff" * 32, b"\0" * 32
LINES = [b"one\n", b"two\n", b"three\n"]
LIMIT = 50_000


def refused(reason):
    return Rejected(reason, "words")


class Stages:
    """All stages of a pipeline. One fails by `at` with `failure`. It notes what each of them was asked for."""

    def __init__(self, at="", failure=None, *, lines=None, validation="eager", paid=True, target=EVERYTHING, **options):
        self.at, self.failure, self.lines = at, failure, lines
        self.paid, self.target = paid, target
        self.charged, self.refunded, self.recorded, self.closed, self.asked = [], [], [], 0, []
        self.service = ServiceSpec.model_validate({
            "id": "eth", "validation": validation, "maxBodyBytes": LIMIT, "backends": {"jsonRpc": {"urls": ["http://b"]}},
        })  # fmt: skip
        self.in_flight, self.overloaded = 0, False
        self.limits = SimpleNamespace(rows=lambda: [{"service": "eth"}])
        signer = SimpleNamespace(problem="", sign=self.sign)
        self.keys = {address("alice"): RemoteKey(key("alice").public_key, signer)}
        simulations = SimpleNamespace(key_id=lambda caller: "", limit=lambda key_id: contextlib.nullcontext())
        self.pipeline = RelayPipeline(
            registry=SimpleNamespace(get=lambda name: self if name == "eth" else None), admission=self, meter=self,
            recording=RelayRecording(self, self.refund, **options), simulations=simulations, keys=lambda: self.keys,
            height=lambda: 15, clock=lambda: 0.0,
        )  # fmt: skip

    def _enter(self, stage):
        self.asked.append(stage)
        if stage == self.at:
            raise self.failure

    async def check_supplier(self, request, header, rpc_type=""):
        self._enter("check")

    async def validate(self, request, header, address="", *, confirm=True):
        await asyncio.sleep(0)
        self._enter("validate")
        return Admitted(HEADER, self.target, WINDOWS, b"identity")

    async def charge(self, service, header, supplier, signed):
        self._enter("charge")
        charge = Charge(supplier, header.session_id, 10, 100, 600, signed)
        self.charged.append(charge)
        return Metered(charge if self.paid else None, paid=self.paid)

    def refund(self, metered):
        if metered.charge is not None:
            self.refunded.append(metered.charge)

    def pool(self, rpc_type):
        self._enter("pool")

    @contextlib.contextmanager
    def used(self):
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    async def forward(self, rpc_type, request, outer, extra, fairness_key="", reservation=None):
        await asyncio.sleep(0)
        self.asked.append((rpc_type, dict(extra), fairness_key))
        self._enter("forward")
        if self.lines is None:
            return BackendResponse(HttpResponse(200, {}, b"answer"), 2)
        return BackendStream(200, {}, self._chunks(), self.close, asyncio.get_running_loop().time() + 60, 1)

    async def _chunks(self):
        for line in self.lines:
            yield line
        self._enter("stream")

    async def close(self):
        self.closed += 1

    async def sign(self, public_key, kind, document):
        self._enter("sign")
        return key("alice").sign(hashlib.sha256(document).digest())

    def submit(self, record):
        self._enter("submit")
        done = asyncio.get_running_loop().create_future()
        if self.at == "record":
            done.set_exception(self.failure)
        else:
            done.set_result(None)
            self.recorded.append(record)
        return done

    def relay(self, *, streams=False, **caller):
        """Return what the client gets: the reason of a rejection, a body, or the pieces of a stream."""

        async def served():
            try:
                result = await self.pipeline.handle(BODY, TransportInfo(Transport.HTTP, {}, **caller), streams=streams)
                if not isinstance(result, StreamedResult):
                    return result.body
                assert self.in_flight == 1, "its backends stay open"
                return [piece async for piece in result.pieces]
            except Rejected as rejected:
                return rejected.reason

        found = asyncio.run(served())
        assert self.in_flight == 0
        assert not self.pipeline.in_flight.any()
        return found


UNCERTAIN = RejectionReason.NOT_RECORDED
FAILURES = [
    ("check", refused(RejectionReason.SUPPLIER_INACTIVE), RejectionReason.SUPPLIER_INACTIVE),
    ("validate", refused(RejectionReason.INVALID_SIGNATURE), RejectionReason.INVALID_SIGNATURE),
    ("charge", refused(RejectionReason.OVER_BUDGET), RejectionReason.OVER_BUDGET),
    ("pool", refused(RejectionReason.BACKEND_UNHEALTHY), RejectionReason.BACKEND_UNHEALTHY),
    ("forward", refused(RejectionReason.BACKEND_FAILED), RejectionReason.BACKEND_FAILED),
    ("sign", SignerUnavailable("away"), RejectionReason.SIGNER_UNAVAILABLE),
    ("submit", QueueFull("many wait"), RejectionReason.OVERLOADED),
    ("record", QueueFull("many wait"), RejectionReason.OVERLOADED),
    ("record", SessionClosed("closed"), RejectionReason.SESSION_CLOSED),
    ("record", LogUnavailable("no space"), RejectionReason.OVERLOADED),
    ("record", RedisUnavailable("away"), UNCERTAIN),
]


@pytest.mark.parametrize("lines", [None, LINES])
@pytest.mark.parametrize("validation", ["eager", "optimistic"])
@pytest.mark.parametrize(("at", "failure", "reason"), FAILURES)
def test_a_relay_that_is_not_served_is_refunded_unless_it_may_still_be_mined(at, failure, reason, validation, lines):
    stages = Stages(at, failure, validation=validation, lines=lines)
    assert stages.relay() is reason
    kept = [] if reason is UNCERTAIN else stages.charged
    assert stages.refunded == kept, "once, and only what was charged"
    assert stages.recorded == []
    reached = lines is not None and any(isinstance(row, tuple) for row in stages.asked) and at != "forward"
    assert stages.closed == reached, "an open stream of a backend is closed once"
    assert stages.pipeline.recent.totals()["served"] == 0


@pytest.mark.parametrize("paid", [True, False])
@pytest.mark.parametrize("validation", ["eager", "optimistic"])
@pytest.mark.parametrize("recording", list(Recording))
def test_what_is_served_is_recorded_once_and_stays_charged(recording, validation, paid):
    charges = []
    stages = Stages(validation=validation, paid=paid, mode=recording)
    body = stages.relay(on_charged=lambda: charges.append(1))
    response = decode_relay_response(body)
    assert decode_http_response(response.payload).body == b"answer"
    assert (len(stages.charged), stages.refunded, len(charges)) == (1, [], int(paid))
    assert stages.charged[0].request_id == b"identity"
    if not paid:
        assert stages.recorded == []
        return
    (record,) = stages.recorded
    assert (record.supplier, record.session_id) == (address("alice"), HEADER.session_id)
    mined = decode_relay(record.relay)
    assert mined.request.encode() == BODY
    assert (mined.response.payload, mined.response.supplier_operator_signature) == (
        b"",
        response.supplier_operator_signature,
    )
    (forwarded,) = (row for row in stages.asked if isinstance(row, tuple))
    named = {"Pocket-Supplier": address("alice"), "Pocket-Service": "eth", "Pocket-Application": address("app eth")}
    assert forwarded == ("jsonRpc", named, address("app eth"))


@pytest.mark.parametrize(("at", "failure", "reason"), [row for row in FAILURES if row[0] == "record"])
def test_fast_recording_serves_before_it_knows_whether_the_relay_is_recorded(at, failure, reason):
    stages = Stages(at, failure, mode=Recording.FAST)
    assert isinstance(stages.relay(), bytes)
    assert stages.refunded == [], reason


def test_a_relay_that_the_difficulty_leaves_out_is_served_and_stays_charged_without_a_record():
    stages = Stages(target=NOTHING)
    assert isinstance(stages.relay(), bytes)
    assert (len(stages.charged), stages.refunded, stages.recorded) == (1, [], [])


@pytest.mark.parametrize(("spare", "recorded"), [(0, 1), (-1, 0)])
def test_a_relay_that_could_not_be_proven_is_served_but_not_recorded_and_not_refunded(spare, recorded):
    whole = Stages()
    whole.relay()
    size = len(whole.recorded[0].relay)
    stages = Stages(largest_leaf=size + spare)
    assert isinstance(stages.relay(), bytes)
    assert (len(stages.recorded), stages.refunded) == (recorded, [])


@pytest.mark.parametrize(("below", "outcome"), [(True, bytes), (False, RejectionReason)])
def test_a_recorded_relay_is_served_only_if_its_session_is_certainly_not_sealed_yet(below, outcome):
    heights = []

    async def is_below(height):
        heights.append(height)
        return below

    stages = Stages(is_below=is_below, seal_after_blocks=2)
    assert isinstance(stages.relay(), outcome)
    assert heights == [WINDOWS.seal_height(2)]
    assert stages.refunded == [], "it may be mined"


@pytest.mark.parametrize("overloaded", [True, False])
def test_a_relay_is_refused_before_any_work_while_too_many_wait_to_be_recorded(overloaded):
    stages = Stages()
    stages.overloaded = overloaded
    assert (stages.relay() is RejectionReason.OVERLOADED) == overloaded
    assert bool(stages.asked) == (not overloaded)


def answers(pieces):
    """Return the lines of a stream's pieces, each of which is signed by itself."""
    assert all(piece.endswith(STREAM_DELIMITER) for piece in pieces)
    signed = [decode_relay_response(piece.removesuffix(STREAM_DELIMITER)) for piece in pieces]
    return b"".join(decode_http_response(row.payload).body for row in signed)


def test_a_stream_is_one_relay_of_all_that_was_forwarded():
    stages = Stages(lines=LINES)
    assert answers(stages.relay(streams=True)) == b"".join(LINES)
    assert (len(stages.charged), stages.refunded, len(stages.recorded), stages.closed) == (1, [], 1, 1)
    assert stages.pipeline.recent.totals()["served"] == 1


@pytest.mark.parametrize(
    ("reason", "mined"),
    [
        (RejectionReason.BACKEND_TIMEOUT, 1), (RejectionReason.RESPONSE_TOO_LARGE, 1), (RejectionReason.OVERLOADED, 1),
        (RejectionReason.BACKEND_FAILED, 0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("lines", [LINES, []])
def test_a_stream_that_a_limit_of_ours_ends_is_what_was_forwarded_and_any_other_is_refunded(reason, mined, lines):
    stages = Stages("stream", refused(reason), lines=lines)
    assert stages.relay(streams=True) is reason
    expected = mined if lines else 0
    assert (len(stages.recorded), len(stages.refunded), stages.closed) == (expected, 1 - expected, 1)


def test_a_stream_longer_than_the_services_limit_is_cut_before_it():
    for collected in (True, False):
        stages = Stages(lines=[b"x" * 20_000 + b"\n"] * 3)
        assert stages.relay(streams=not collected) is RejectionReason.RESPONSE_TOO_LARGE
        assert len(stages.recorded) == (not collected)
        assert len(stages.refunded) == collected
    whole = Stages(lines=[b"x" * (LIMIT - 1) + b"\n"])
    assert len(answers(whole.relay(streams=True))) == LIMIT
    assert len(decode_http_response(decode_relay_response(whole.relay()).payload).body) == LIMIT


@pytest.mark.parametrize("received", [0, 1, 2])
def test_a_client_that_leaves_a_stream_pays_for_what_it_may_have_received(received):
    stages = Stages(lines=LINES)

    async def leave():
        result = await stages.pipeline.handle(BODY, TransportInfo(Transport.HTTP, {}), streams=True)
        for _ in range(received):
            await anext(result.pieces)
        await result.pieces.aclose()

    asyncio.run(leave())
    assert (len(stages.recorded), stages.refunded, stages.closed) == (1, [], 1)
    assert not stages.pipeline.in_flight.any()


def test_a_stream_whose_record_fails_is_refunded_once_unless_it_may_be_mined():
    for at, failure, reason in FAILURES:
        if at in ("submit", "record"):
            stages = Stages(at, failure, lines=LINES)
            assert stages.relay(streams=True) is reason
            assert len(stages.refunded) == (reason is not UNCERTAIN)


def test_a_further_response_is_charged_without_an_identity_signed_and_recorded():
    stages = Stages()
    pipeline = stages.pipeline
    relay = pipeline.parse(BODY, TransportInfo(Transport.HTTP, {}))

    async def event():
        admitted, _ = await pipeline.admit(relay)
        metered = await pipeline.charge_event(relay)
        return await pipeline.record_event(relay, admitted, metered, b"event")

    response = asyncio.run(event())
    assert response.payload == b"event"
    assert [charge.request_id for charge in stages.charged] == [b"identity", b""]
    assert (len(stages.recorded), stages.refunded) == (1, [])
    assert pipeline.recent.totals() == {"served": 1, "failed": 0, "timed": 0, "seconds": 0.0}
    stages.at, stages.failure = "sign", SignerUnavailable("away")
    with pytest.raises(Rejected):
        asyncio.run(event())
    assert stages.refunded == [stages.charged[-1]]


@pytest.mark.parametrize(("name", "served"), [("alice", True), ("bob", False)])
def test_a_supplier_is_served_while_its_key_is_loaded(name, served):
    stages = Stages()
    assert stages.pipeline.serves(address(name)) is served
    assert stages.pipeline.budgets() == [{"service": "eth"}]
