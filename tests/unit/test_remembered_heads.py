"""Heads that are remembered are those that would be made again, however similar what they are made of is."""

from hypothesis import given
from hypothesis import strategies as st

from pocket.protocol.relays.envelope import HttpRequest
from pocket_relayer.backends import header_fields, http1_client
from pocket_relayer.backends.http1_client import Origin
from pocket_relayer.transports import http1_messages
from pocket_relayer.transports.replies import OutgoingResponse

NAMES = st.sampled_from(["Accept", "Content-Type", "Pocket-A", "pocket-a", "X-A", "x_a", "Connection", "User-Agent"])
VALUES = st.sampled_from(["a", "b", "x-a", ""])
FIELDS = st.dictionaries(NAMES, VALUES, max_size=3)
MANY = st.dictionaries(NAMES, st.lists(VALUES, max_size=2).map(tuple), max_size=3)


@given(st.lists(st.tuples(MANY, FIELDS, FIELDS, FIELDS), min_size=2, max_size=6))
def test_headers_for_a_backend_after_those_of_others(rows):
    def made(row):
        return list(header_fields.request_headers(HttpRequest("POST", "/", row[0], b""), *row[1:]).items())

    alone = []
    for row in rows:
        header_fields._known_requests.clear()
        alone.append(made(row))
    header_fields._known_requests.clear()
    assert [made(row) for row in (*rows, *rows)] == [*alone, *alone]


HEADS = st.tuples(
    st.sampled_from(["GET", "POST"]), st.sampled_from(["/", "/a"]), st.sampled_from(["a", "b"]).map(
        lambda host: Origin(host, 80, host)
    ), st.lists(st.tuples(NAMES, VALUES), max_size=3), st.integers(0, 3),
)  # fmt: skip


@given(st.lists(HEADS, min_size=2, max_size=6))
def test_heads_of_calls_after_others(rows):
    alone = []
    for row in rows:
        http1_client._known_heads.clear()
        alone.append(http1_client.encode_head(*row))
    http1_client._known_heads.clear()
    assert [http1_client.encode_head(*row) for row in (*rows, *rows)] == [*alone, *alone]


REPLIES = st.builds(
    OutgoingResponse, st.sampled_from([200, 404]), FIELDS, st.binary(max_size=3), st.none(), FIELDS
)  # fmt: skip


@given(st.lists(st.tuples(REPLIES, st.booleans(), st.booleans()), min_size=2, max_size=6))
def test_heads_of_responses_after_others(rows):
    def encoded(row):
        return http1_messages.encode_response_head(row[0], chunked=row[1], close=row[2]).split(b"Date: ")[0]

    alone = []
    for row in rows:
        http1_messages._known_responses.clear()
        alone.append(encoded(row))
    http1_messages._known_responses.clear()
    assert [encoded(row) for row in (*rows, *rows)] == [*alone, *alone]


def test_a_refused_upload_does_not_close_the_connections_of_equal_requests():
    data = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n"
    first, _ = http1_messages.parse_head(data)
    second, _ = http1_messages.parse_head(data)
    assert first is second, "it is remembered"
    assert second.keep_alive
    assert (second.path, second.body_bytes, dict(second.headers)) == ("/", 2, {"Host": "a", "Content-Length": "2"})
    assert not hasattr(second.headers, "add"), "nothing can be added to what is shared"
