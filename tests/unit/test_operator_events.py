"""Events are written beside everything else: bounded, warnings first, what is dropped is counted."""

import asyncio
import contextlib
import re
from datetime import UTC, datetime

import pytest

from pocket.api.status import Condition
from pocket.kube.api_client import Conflict, KubeError
from pocket_operator.controller import events, operator_metrics
from pocket_operator.controller.events import EventWriter
from pocket_operator.decide.conditions import EventToEmit, events_to_emit

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class EventApi:
    """Events by name. Writes wait until `open` is set."""

    def __init__(self):
        self.events, self.calls, self.open, self.refused = {}, [], asyncio.Event(), None
        self.open.set()

    async def create(self, _, namespace, body):
        self.calls.append("create")
        await self.open.wait()
        if self.refused is not None:
            raise self.refused
        name = body["metadata"]["name"]
        if name in self.events:
            raise Conflict("it exists already", 409)
        self.events[name] = body

    async def get_or_none(self, _, namespace, name):
        self.calls.append("get")
        return self.events.get(name)

    async def merge(self, _, namespace, name, patch):
        self.calls.append("merge")
        self.events[name] |= patch


def subject(name):
    return {
        "apiVersion": "pocket.network/v1beta1", "kind": "Supplier",
        "metadata": {"name": name, "namespace": "ns", "uid": f"uid-{name}"}, "spec": {"large": "x" * 1000},
    }  # fmt: skip


def dropped():
    return operator_metrics.EVENTS_DROPPED._value.get()


@pytest.fixture
def clock():
    return [100.0]


@contextlib.asynccontextmanager
async def writing(api, clock):
    writer = EventWriter(api, lambda: clock[0], lambda: NOW, "operator-0")
    running = asyncio.create_task(writer.run())
    yield writer
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_an_event_takes_one_request_and_its_repetition_counts_it_up(clock):
    api = EventApi()
    async with writing(api, clock) as writer:
        for pause in (0.0, 59.0, 2.0):
            clock[0] += pause
            writer.post(subject("a"), EventToEmit(True, "KeyMissing", "no key"))
            await writer.join()
    (event,) = api.events.values()
    assert (event["count"], event["involvedObject"]["uid"]) == (2, "uid-a")
    assert api.calls == ["create", "get", "merge"]


async def test_an_event_of_an_earlier_life_is_counted_up(clock):
    api = EventApi()
    for _ in range(2):
        async with writing(api, clock) as writer:
            writer.post(subject("a"), EventToEmit(True, "KeyMissing", "no key"))
            await writer.join()
    assert [event["count"] for event in api.events.values()] == [2]


async def test_a_slow_api_server_costs_events_and_no_time(clock, monkeypatch):
    """Nobody waits for an Event. Those that are no warnings leave half of the queue to warnings."""
    monkeypatch.setattr(events, "_WAITING", 10)
    api, before = EventApi(), dropped()
    api.open.clear()
    async with writing(api, clock) as writer:
        for number in range(20):
            writer.post(subject(f"s{number}"), EventToEmit(False, "Ready", "serves"))
        for number in range(20):
            writer.post(subject(f"w{number}"), EventToEmit(True, "KeyMissing", "no key"))
        assert dropped() - before == 15 + 15
        api.open.set()
        await writer.join()
    written = [event["involvedObject"]["name"] for event in api.events.values()]
    assert sorted(written[:5]) == [f"w{n}" for n in range(5)], "warnings go first"
    assert sorted(written[5:]) == [f"s{n}" for n in range(5)]


async def test_a_refused_event_is_counted_and_stops_no_other(clock):
    api, before = EventApi(), dropped()
    async with writing(api, clock) as writer:
        api.refused = KubeError("exceeded quota", 403)
        writer.post(subject("a"), EventToEmit(True, "KeyMissing", "no key"))
        await writer.join()
        api.refused = None
        writer.post(subject("b"), EventToEmit(True, "KeyMissing", "no key"))
        await writer.join()
    assert dropped() - before == 1
    assert [event["involvedObject"]["name"] for event in api.events.values()] == ["b"]


@pytest.mark.parametrize("cut_at", "-.a")
async def test_the_event_of_an_object_with_the_longest_name_has_a_valid_name(clock, cut_at):
    name = "n" * 235 + cut_at + "m" * 17
    api = EventApi()
    async with writing(api, clock) as writer:
        writer.post(subject(name), EventToEmit(True, "KeyMissing", "no key"))
        await writer.join()
    (made,) = api.events
    assert len(made) <= 253
    assert made.startswith(name[:235])
    assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", part) for part in made.split("."))


def row(status, reason):
    return {"type": "Ready", "status": status, "reason": reason}


@pytest.mark.parametrize(
    ("before", "after", "emitted"),
    [
        ([], ("False", "LoadingKeys"), []),
        ([], ("True", "Ready"), []),
        ([row("False", "LoadingKeys")], ("True", "Ready"), ["Ready"]),
        ([row("True", "Ready")], ("True", "Ready"), []),
        ([], ("False", "KeyMissing"), ["KeyMissing"]),
    ],
)
def test_what_is_as_it_should_be_at_first_sight_is_no_event(before, after, emitted):
    status, reason = after
    now = Condition(type="Ready", status=status, reason=reason, message="m", last_transition_time="t")
    assert [event.reason for event in events_to_emit([now], before)] == emitted
