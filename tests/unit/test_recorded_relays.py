"""Which served relays are recorded and which are paid back, by what the recorder says."""

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from pocket.keys.remote_signer import RemoteKey, SignerUnavailable
from pocket.protocol.relays.messages import RelayRequest, RelayResponse, SessionHeader
from pocket.redis_store.store_errors import LogUnavailable, QueueFull, RedisUnavailable, SessionClosed
from pocket_relayer.limits.rejection import Rejected, RejectionReason
from pocket_relayer.pipeline.authorization import Admitted
from pocket_relayer.pipeline.metering import Metered
from pocket_relayer.pipeline.pipeline import RelayPipeline
from pocket_relayer.pipeline.recording import Recording, RelayRecording
from world import key

HEADER = SessionHeader("app", "eth", "session", 1, 10)
RELAY = SimpleNamespace(
    request=RelayRequest(HEADER, b"signature", "alice", b"payload"), supplier="alice", header=HEADER,
    service=SimpleNamespace(id="eth"),
)  # fmt: skip
RESPONSE = RelayResponse(HEADER, b"signature", b"payload", b"hash")
EVERY, NONE = b"\xff" * 32, bytes(32)
PAID, UNPAID = Metered("the charge"), Metered(None, paid=False)


@dataclass
class Recorder:
    """It records at once, or says why not."""

    error: Exception | None = None
    taken: list = field(default_factory=list)

    def submit(self, record):
        self.taken.append(record)
        done = asyncio.get_running_loop().create_future()
        if self.error is None:
            done.set_result(None)
        else:
            done.set_exception(self.error)
        return done


@dataclass
class Meter:
    refunded: list = field(default_factory=list)

    def refund(self, metered):
        self.refunded.append(metered)


@pytest.mark.parametrize(("metered", "target", "largest", "recorded"), [
    (PAID, EVERY, 1000, True), (UNPAID, EVERY, 1000, False), (PAID, NONE, 1000, False), (PAID, EVERY, 20, False),
], ids=["paid", "unpaid", "not mined", "too large"])  # fmt: skip
async def test_what_is_paid_mined_and_can_be_proven_is_recorded_and_nothing_else(metered, target, largest, recorded):
    recorder, meter = Recorder(), Meter()
    recording = RelayRecording(recorder, meter.refund, largest_leaf=largest)
    await recording.record(RELAY, Admitted(HEADER, target, None, b"id"), metered, RESPONSE)
    assert [(row.supplier, row.session_id, row.session_end) for row in recorder.taken] == (
        [("alice", "session", 10)] if recorded else []
    )
    assert meter.refunded == [], "it was served"


@pytest.mark.parametrize(("error", "reason", "refunded"), [
    (SessionClosed("closed"), RejectionReason.SESSION_CLOSED, True),
    (LogUnavailable("full"), RejectionReason.OVERLOADED, True),
    (QueueFull("full"), RejectionReason.OVERLOADED, True),
    (RedisUnavailable("away"), RejectionReason.NOT_RECORDED, False),
])  # fmt: skip
async def test_a_relay_that_is_not_recorded_is_paid_back_unless_the_log_may_still_bring_it(error, reason, refunded):
    meter = Meter()
    with pytest.raises(Rejected) as rejected:
        await RelayRecording(Recorder(error), meter.refund).record(
            RELAY, Admitted(HEADER, EVERY, None, b"id"), PAID, RESPONSE
        )
    assert (rejected.value.reason, meter.refunded) == (reason, [PAID] if refunded else [])


async def test_without_strict_recording_no_relay_waits_for_it():
    recorder = Recorder()
    waits = asyncio.get_running_loop().create_future()
    recorder.submit = lambda record: waits
    async with asyncio.timeout(5):
        await RelayRecording(recorder, Meter().refund, Recording.FAST).record(
            RELAY, Admitted(HEADER, EVERY, None, b"id"), PAID, RESPONSE
        )
    waits.set_result(None)


class SilentSigner:
    async def sign(self, *_):
        raise SignerUnavailable("away")


async def test_a_response_over_a_websocket_that_cannot_be_signed_is_paid_back_and_not_recorded():
    recorder, meter = Recorder(), Meter()
    relay = SimpleNamespace(**vars(RELAY), key=RemoteKey(key("alice").public_key, SilentSigner()))
    pipeline = RelayPipeline(
        registry=None, admission=None, meter=meter, recording=RelayRecording(recorder, meter.refund),
        simulations=None, keys=dict, height=lambda: 5, clock=lambda: 0.0,
    )  # fmt: skip
    with pytest.raises(Rejected) as rejected:
        await pipeline.record_event(relay, Admitted(HEADER, EVERY, None, b"id"), PAID, b"frame")
    assert rejected.value.reason is RejectionReason.SIGNER_UNAVAILABLE
    assert (meter.refunded, recorder.taken) == ([PAID], [])
