"""Our CometBFT reader against the recorded bodies and frames of a real node."""

import json

import pytest
from corpus import load
from shannon.chain.comet import announced_height, block_of, block_results_of, parse_time, result_of
from shannon.errors import ChainRefusal, DecodingError

DATA = load("chain/cometbft")
CALLS = {call["id"]: call for call in DATA["calls"]}


def result(identifier):
    return result_of(json.loads(CALLS[identifier]["body"]))


def test_blocks_carry_height_hash_and_time():
    block = block_of(result("block-session-start"))
    assert block.height == 201
    assert block.hash.hex().upper() == "000197400CD3D0BAE8534F1828F51F1FD8A3E7AD2BA5B9A8D81DCBFE0E0693F7"
    assert (block.time.seconds, block.time.nanos) == (1795370586, 215749236)


def test_block_results_carry_codes_and_unquoted_events():
    results = block_results_of(result("block-results-settlement"))
    settled = [e for e in results.end_events if e.type == "pocket.tokenomics.EventClaimSettled"]
    assert results.height == 228
    assert settled
    assert all(e.attributes["settled_upokt"] == "15000upokt" for e in settled)
    assert block_results_of(result("block-results-claims")).transaction_codes == (0, 0)
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
