"""Our CometBFT reader against the recorded bodies and frames of a real node."""

import json
from datetime import UTC, datetime

import pytest

from corpus import load
from shannon.chain.comet import announced_height, block_of, block_results_of, parse_time, result_of
from shannon.errors import ChainRefusal, DecodingError

DATA = load("chain/cometbft")
CALLS = {call["id"]: call for call in DATA["calls"]}


def result(identifier):
    return result_of(json.loads(CALLS[identifier]["body"]))


def test_blocks_carry_height_hash_and_time():
    recorded = result("block-session-start")
    block = block_of(recorded)
    assert str(block.height) == recorded["block"]["header"]["height"]
    assert block.hash.hex().upper() == recorded["block_id"]["hash"]
    whole, _, fraction = recorded["block"]["header"]["time"].rstrip("Z").partition(".")
    assert datetime.fromtimestamp(block.time.seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") == whole
    assert block.time.nanos == int(fraction.ljust(9, "0") or 0)


def test_block_results_carry_codes_and_unquoted_events():
    recorded = result("block-results-settlement")
    results = block_results_of(recorded)
    assert str(results.height) == recorded["height"]
    kind = "pocket.tokenomics.EventClaimSettled"
    wanted = [
        next(a["value"].strip('"') for a in e["attributes"] if a["key"] == "settled_upokt")
        for e in recorded["finalize_block_events"]
        if e["type"] == kind
    ]
    assert wanted
    assert [e.attributes["settled_upokt"] for e in results.end_events if e.type == kind] == wanted
    claims = result("block-results-claims")
    assert block_results_of(claims).transaction_codes == tuple(row["code"] for row in claims["txs_results"])
    assert block_results_of(result("block-results-empty")).transaction_codes == ()


@pytest.mark.parametrize("identifier", ["block-future", "block-zero", "post-unknown-method", "post-block-future"])
def test_errors_are_refusals_with_the_useful_text(identifier):
    body = json.loads(CALLS[identifier]["body"])
    text = body["error"].get("data") or body["error"]["message"]
    with pytest.raises(ChainRefusal) as caught:
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
