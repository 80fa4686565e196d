"""Our CometBFT reader against the recorded bodies and frames of a real node."""

import json
from datetime import UTC, datetime

import pytest

from corpus import load
from pocket.chain.comet import announced_height, block_of, latest_block_of, parse_time, result_of, retention_of
from pocket.chain.end_block_events import EndBlockEventParser
from pocket.chain.model import NodeRetention
from pocket.errors import ChainError, DecodingError

DATA = load("chain/cometbft")
CALLS = {call["id"]: call for call in DATA["calls"]}


def result(identifier):
    return result_of(json.loads(CALLS[identifier]["body"]))


def _is(block, height, block_hash, time):
    assert str(block.height) == height
    assert block.hash.hex().upper() == block_hash
    whole, _, fraction = time.rstrip("Z").partition(".")
    assert datetime.fromtimestamp(block.time.seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") == whole
    assert block.time.nanos == int(fraction.ljust(9, "0") or 0)


def test_a_commit_carries_height_hash_and_time_of_its_block():
    whole = result("block-session-start")
    header = whole["block"]["header"]
    _is(block_of(result("commit")), header["height"], whole["block_id"]["hash"], header["time"])


def test_the_status_carries_height_hash_and_time_of_the_latest_block():
    whole = result("block-latest")
    header = whole["block"]["header"]
    _is(latest_block_of(result("status")), header["height"], whole["block_id"]["hash"], header["time"])


def test_the_status_says_what_the_node_keeps():
    assert retention_of(result("status")) == NodeRetention(
        1, int(result("block-latest")["block"]["header"]["height"]), True
    )


@pytest.mark.parametrize("identifier", sorted(i for i in CALLS if "block-results" in i and "future" not in i))
@pytest.mark.parametrize("piece", [1, 7, 1000, 1_000_000])
def test_events_of_a_blocks_end_are_read_in_pieces_of_any_size(identifier, piece):
    body = CALLS[identifier]["body"].encode()
    reader = EndBlockEventParser(lambda event: True)
    for start in range(0, len(body), piece):
        reader.feed(body[start : start + piece])
    recorded = result(identifier)["finalize_block_events"] or []
    found = reader.close()
    assert [event.type for event in found] == [row["type"] for row in recorded]
    for event, row in zip(found, recorded, strict=True):
        for attribute in row["attributes"]:
            value = attribute["value"]
            assert event.attributes[attribute["key"]] == (json.loads(value) if value.startswith('"') else value)


def test_settlements_are_among_them():
    reader = EndBlockEventParser(lambda event: event.type == "pocket.tokenomics.EventClaimSettled")
    reader.feed(CALLS["block-results-settlement"]["body"].encode())
    found = reader.close()
    assert found
    assert all(event.attributes["settled_upokt"].endswith("upokt") for event in found)


@pytest.mark.parametrize("identifier", ["block-future", "block-zero", "post-unknown-method", "post-block-future"])
def test_errors_keep_the_useful_text(identifier):
    body = json.loads(CALLS[identifier]["body"])
    text = body["error"].get("data") or body["error"]["message"]
    with pytest.raises(ChainError) as caught:
        result_of(body)
    assert str(caught.value) == text


def test_every_recorded_header_event_announces_its_height():
    heights = []
    for connection in DATA["websocket"]:
        if connection["id"] != "headers":
            continue
        heights = [announced_height(f["text"]) for f in connection["frames"] if f["direction"] == "server"]
    assert heights[0] is None
    assert heights[1:]
    assert all(isinstance(height, int) for height in heights[1:])


@pytest.mark.parametrize("text", ["", "2026-13-01T00:00:00Z", "now", "2026-01-01T00:00:00.xZ"])
def test_times_that_are_none_are_typed_errors(text):
    with pytest.raises(DecodingError):
        parse_time(text)


@pytest.mark.parametrize("body", [[], "x", {"result": {"data": 1}}, {"result": {"block": 1}}])
def test_answers_that_are_none_are_typed_errors(body):
    with pytest.raises(DecodingError):
        block_of(result_of(body))
    with pytest.raises(DecodingError):
        announced_height(json.dumps({"result": {"data": {"value": 1}}}))
    with pytest.raises(DecodingError):
        announced_height("[" * 100_000)
