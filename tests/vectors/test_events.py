"""Events as the chain emits them: read by our client, and written by our localnet in the very same form."""

import json

import pytest

from corpus import load, numbered
from pocket.chain.convert import events
from pocket.chain.model import Event
from pocket_localnet.encode import event_json

CASES = load("events")["events"]


def as_comet(case):
    rows = [{"key": name, "value": value, "index": True} for name, value in case["attributes"].items()]
    return {"type": case["type"], "attributes": rows}


@pytest.mark.parametrize(("index", "case"), numbered(CASES))
def test_values_are_read_without_their_quotes(index, case):
    (event,) = events([as_comet(case)])
    assert event.type == case["type"]
    for name, value in case["attributes"].items():
        quoted = value.startswith('"')
        assert event.attributes[name] == (json.loads(value) if quoted else value)


@pytest.mark.parametrize(("index", "case"), numbered(CASES))
def test_the_localnet_writes_them_as_the_chain_does(index, case):
    (event,) = events([as_comet(case)])
    written = event_json(Event(event.type, event.attributes), ("mode", "EndBlock"))
    assert {row["key"]: row["value"] for row in written["attributes"][:-1]} == case["attributes"]
