"""Events of a block's end out of answers of any size, cut anywhere."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from answers import end_events, everything, results_text, settled_row
from pocket.chain.end_block_events import LARGEST_EVENT, EndBlockEventParser
from pocket.errors import DecodingError

TEXTS = st.text(max_size=12)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "type": TEXTS,
            "attributes": st.lists(st.fixed_dictionaries({"key": TEXTS, "value": TEXTS.map(json.dumps)}), max_size=3),
        }
    ),
    max_size=4,
)


@given(ROWS, st.lists(st.integers(1, 60), min_size=1), st.booleans(), st.sampled_from([(",", ":"), (", ", " : ")]))
def test_wherever_an_answer_is_cut_its_events_are_the_same(rows, cuts, ascii_only, separators):
    # What looks like the start of the events, but is inside a string, is not one.
    result = {
        "txs_results": [{"log": '"finalize_block_events":[{"type":"no","attributes":[]}]'}],
        "finalize_block_events": rows,
        "validator_updates": [{"power": "]"}],
    }
    body = json.dumps({"result": result}, ensure_ascii=ascii_only, separators=separators).encode()
    pieces, at = [], 0
    while at < len(body):
        size = cuts[len(pieces) % len(cuts)]
        pieces.append(body[at : at + size])
        at += size
    found = end_events(pieces)
    assert [event.type for event in found] == [row["type"] for row in rows]
    for event, row in zip(found, rows, strict=True):
        assert event.attributes == {a["key"]: json.loads(a["value"]) for a in row["attributes"]}


@pytest.mark.parametrize("length", [0, 40, 150, 400, -1])
def test_an_answer_that_ends_too_early_is_refused(length):
    body = b"".join(results_text(9, [settled_row("alice", 1)]))[: length or None]
    body = body if length else b""
    reader = EndBlockEventParser(everything)
    reader.feed(body)
    if length == -1:  # everything that is asked for is there
        assert len(reader.close()) == 1
        return
    with pytest.raises(DecodingError, match="too early"):
        reader.close()


@pytest.mark.parametrize(
    "rows", [b"7", b"[]", b"null", b'"x"', b'{"attributes":[]}', b'{"type":"x","attributes":[{}]}', b"[" * 100_000,
             b'{"type":"x","attributes":7}', b"\xff"]
)  # fmt: skip
def test_what_is_no_event_is_refused(rows):
    with pytest.raises(DecodingError):
        end_events([b'{"result":{"finalize_block_events":[', rows, b"]}}"])


def test_no_events_are_none():
    assert end_events([b'{"result":{"height":"3","finalize_block_events":null}}']) == ()
    assert end_events([b'{"result":{"height":"3","finalize_block_events":[]}}']) == ()


def test_an_event_that_never_ends_is_refused_before_it_takes_memory():
    reader = EndBlockEventParser(everything)
    reader.feed(b'{"result":{"finalize_block_events":[{"type":"')
    for _ in range(LARGEST_EVENT // 65_536 - 1):
        reader.feed(b"x" * 65_536)
    with pytest.raises(DecodingError):
        reader.feed(b"x" * 65_536)


def test_of_a_large_block_only_what_is_wanted_stays():
    reader, most = EndBlockEventParser(lambda event: event.attributes["supplier_operator_address"] == "alice"), 0
    for piece in results_text(9, (settled_row("alice" if n % 500 == 0 else "others", n) for n in range(5000))):
        reader.feed(piece)
        most = max(most, len(reader._text))
    assert [int(event.attributes["session_id"], 16) for event in reader.close()] == list(range(0, 5000, 500))
    assert most < 4096
