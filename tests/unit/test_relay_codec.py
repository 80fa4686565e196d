import contextlib
import json
from dataclasses import replace

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from pocket.errors import DecodingError, InvalidRelay
from pocket.protocol.pb import sdk_types_pb2 as pb
from pocket.protocol.relays import messages, wire
from pocket.protocol.relays.envelope import (
    HttpRequest,
    HttpResponse,
    canonical_header_name,
    decode_http_request,
    decode_http_response,
)
from pocket.protocol.relays.messages import (
    Relay,
    RelayMinerError,
    RelayRequest,
    RelayResponse,
    SessionHeader,
    decode_mined_relay,
    decode_relay,
    decode_relay_request,
    decode_relay_response,
)

TEXT = st.text(max_size=12)
HEADERS = st.builds(SessionHeader, TEXT, TEXT, TEXT, st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
REQUESTS = st.builds(RelayRequest, st.none() | HEADERS, st.binary(max_size=20), TEXT, st.binary(max_size=30))
ERRORS = st.builds(RelayMinerError, TEXT, st.integers(0, 2**32 - 1), TEXT, TEXT)
RESPONSES = st.builds(
    RelayResponse,
    st.none() | HEADERS,
    st.binary(max_size=20),
    st.binary(max_size=30),
    st.none() | st.binary(min_size=1, max_size=32),
    st.none() | ERRORS,
)


@given(REQUESTS)
def test_a_request_survives_encoding(request):
    assert decode_relay_request(request.encode()) == request


@given(RESPONSES)
def test_a_response_survives_encoding(response):
    assert decode_relay_response(response.encode()) == response


@given(RESPONSES)
def test_the_copy_that_is_mined_is_encoded_without_the_payload(response):
    assert response.encode_without_payload() == replace(response, payload=b"").encode()
    assert decode_relay_response(response.encode_without_payload()) == response.without_payload()


@given(REQUESTS, RESPONSES)
def test_a_relay_survives_encoding(request, response):
    relay = Relay(request, response)
    assert decode_relay(relay.encode()) == relay


@given(REQUESTS)
def test_the_fast_and_the_exact_decoder_agree(request):
    data = request.encode()
    assert decode_relay_request(data).encode() == data
    fields = wire.decode(wire.REQUEST, data)
    assert fields.get("payload", b"") == request.payload


@given(st.binary(max_size=120))
def test_arbitrary_bytes_raise_only_decoding_errors(data):
    for decode in (
        decode_relay_request,
        decode_relay_response,
        decode_relay,
        decode_http_request,
        decode_http_response,
    ):
        with contextlib.suppress(DecodingError):
            decode(data)


@given(st.binary(max_size=120))
def test_what_decodes_is_normalised_once_and_for_all(data):
    try:
        once = decode_relay_request(data).encode()
    except DecodingError:
        return
    assert decode_relay_request(once).encode() == once


def test_deeply_nested_groups_neither_recurse_nor_hang():
    depth = 2_000
    data = b"\x7b" * depth + b"\x7c" * depth
    assert wire.decode(wire.REQUEST, data) == {}
    with pytest.raises(DecodingError):
        wire.decode(wire.REQUEST, data[:-1])


def test_a_mined_relay_needs_both_parts_and_valid_headers():
    with pytest.raises(InvalidRelay, match="lacks"):
        decode_mined_relay(b"")
    request = RelayRequest(SessionHeader("x", "eth", "s", 1, 2), b"s", "a", b"")
    response = RelayResponse(None, b"s", b"")
    with pytest.raises(InvalidRelay, match="application address"):
        decode_mined_relay(Relay(request, response).encode())


@pytest.mark.parametrize(
    ("name", "canonical"),
    [("content-type", "Content-Type"), ("X-cUSTOM-id", "X-Custom-Id"), ("a b", "a b"), ("", ""), ("é", "é")],
)
def test_header_names_are_canonical_where_they_are_tokens(name, canonical):
    assert canonical_header_name(name) == canonical


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"[" * 5000, 4),
        (b"\xff\xfe", 4),
        (json.dumps({"id": 1, "jsonrpc": "2.0", "method": "m"}).encode(), 3),
        (json.dumps({"id": True, "jsonrpc": "2.0", "method": "m"}).encode(), 4),
        (json.dumps({"id": 0, "jsonrpc": "2.0", "method": "m"}).encode(), 4),
        (json.dumps([1]).encode(), 4),
    ],
)
def test_the_rpc_type_of_odd_bodies_is_rest(body, expected):
    request = HttpRequest("POST", "http://x/", {"Content-Type": ("application/json",)}, body)
    assert request.rpc_type() == expected
    assert HttpRequest("POST", "", {}, b"").rpc_type() == 0


FLOODS = {
    "unknown fields": lambda n: b"\x78\x01" * n,
    "parts to be merged": lambda n: b"\x0a\x00" * n,
    "payloads": lambda n: b"\x12\x00" * n,
    "nested groups": lambda n: b"\x7b" * n + b"\x7c" * n,
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_a_request_of_more_fields_than_any_has_is_refused_and_one_of_some_more_is_not(flood):
    request = RelayRequest(SessionHeader("app", "eth", "s", 1, 10), b"s", "supplier", b"")
    assert decode_relay_request(request.encode() + flood(1000)) == request
    with pytest.raises(DecodingError, match="more than 4096 fields"):
        decode_relay_request(request.encode() + flood(5000))


def test_headers_as_long_as_a_body_are_not_kept():
    kept = messages._known_header.cache_info().currsize
    for n in range(3):
        long = SessionHeader("a" * 1000 + str(n), "eth", "s", 1, 10)
        assert decode_relay_request(RelayRequest(long, b"s", "supplier", b"p").encode()).header == long
        assert long.problem() is not None
    assert messages._known_header.cache_info().currsize == kept


def test_a_changed_copy_of_a_decoded_request_is_not_encoded_as_the_original():
    sent = RelayRequest(SessionHeader("app", "eth", "s", 1, 10), b"s", "supplier", b"p")
    decoded = decode_relay_request(sent.encode())
    changed = replace(decoded, signature=b"other", header=replace(sent.header, session_id="t"))
    assert decode_relay_request(changed.encode()) == changed != decoded
    assert decoded.signable_bytes() == replace(sent, signature=b"").encode()


@given(
    st.sampled_from([1, 5, 100, 127, 128, 300, 17_000]), st.sampled_from([1, 20, 127, 128, 16_384]),
    st.sampled_from([1, 40, 127, 128, 500]),
)  # fmt: skip
def test_what_is_cut_out_of_a_request_for_its_signature_is_what_its_fields_encode_to(payload, signature, supplier):
    sent = RelayRequest(SessionHeader("a" * 40, "eth", "s", 1, 10), b"s" * signature, "x" * supplier, b"p" * payload)
    decoded = decode_relay_request(sent.encode())
    assert decoded._encoding, "it was sliced"
    assert decoded.signable_bytes() == sent.signable_bytes() == replace(sent, signature=b"").encode()


@given(st.binary(max_size=60), st.integers(0, 59), st.binary(max_size=3))
def test_a_request_is_sliced_as_the_exact_decoder_reads_it(payload, at, inserted):
    data = RelayRequest(SessionHeader("app", "eth", "s", 1, 10), b"s" * 130, "supplier", payload).encode()
    data = data[:at] + inserted + data[at + len(inserted) // 2 :]
    try:
        exact = messages._request(wire.decode(wire.REQUEST, data))
    except DecodingError:
        with pytest.raises(DecodingError):
            decode_relay_request(data)
    else:
        assert decode_relay_request(data) == exact
        assert decode_relay_request(data).encode() == exact.encode()


def test_a_request_with_a_length_in_a_longer_form_is_encoded_in_the_shortest():
    sent = RelayRequest(SessionHeader("app", "eth", "s", 1, 10), b"s", "supplier", b"p" * 130)
    longer = sent.encode().replace(b"\x12\x82\x01p", b"\x12\x82\x81\x00p")
    assert len(longer) == len(sent.encode()) + 1
    assert decode_relay_request(longer).encode() == sent.encode()
    padded = RelayRequest(SessionHeader("app", "eth", "s", 1, 10), b"s", "supplier", b"p" * 5)
    assert decode_relay_request(padded.encode().replace(b"\x12\x05p", b"\x12\x85\0p")).encode() == padded.encode()
    # Bits above 2^64 are none of the number.
    longest = sent.encode().replace(b"\x12\x82\x01p", b"\x12\x82\x81" + b"\x80" * 7 + b"\x02p")
    assert decode_relay_request(longest).encode() == sent.encode()


names = st.text(st.sampled_from("aZ-é漢😀"), min_size=1, max_size=150)


@given(
    st.integers(0, 2**32 - 1), st.dictionaries(names, st.lists(names, max_size=3).map(tuple), max_size=5), st.binary()
)
def test_a_response_envelope_is_encoded_by_ascending_header(status, headers, body):
    response = HttpResponse(status, headers, body)
    message = pb.POKTHTTPResponse()
    message.ParseFromString(response.encode())
    assert decode_http_response(response.encode()) == response
    assert all(entry.key == name for name, entry in message.header.items())
    entries = [HttpResponse(0, {name: headers[name]}, b"").encode() for name in sorted(headers)]
    assert b"".join(entries) in response.encode()


ENVELOPE_PARTS = st.sampled_from([
    b"\x0a\x04POST", b"\x0a\x00", b"\x1a\x01/", b"\x1a\x02\xff\xfe", b"\x12\x08\x0a\x01A\x12\x03\x12\x01b",
    b"\x12\x08\x0a\x01A\x12\x03\x12\x01c", b"\x12\x00", b"\x22\x02{}", b"\x22\x00", b"\x22\x82\x00{}",
    b"\x22\x82\x01" + b"x" * 130, b"\xa2\x00\x01y", b"\x20\x07", b"\x08\x22", b"\x28\x01", b"\x32\x01z",
    b"\x08\x02\x22\x02", b"\x22\x09cut", b"\x22", b"\x9a\x00\x01/",
])  # fmt: skip
"""Fields of request envelopes: ordinary, repeated, unknown, in unusual encodings, of wrong types and cut off."""


@given(st.lists(ENVELOPE_PARTS, max_size=6).map(b"".join))
def test_a_request_envelope_is_decoded_as_the_runtime_decodes_it(data):
    message = pb.POKTHTTPRequest()
    try:
        message.ParseFromString(data)
    except DecodeError:
        with pytest.raises(DecodingError):
            decode_http_request(data)
        return
    headers = {name: tuple(header.values) for name, header in message.header.items()}
    assert decode_http_request(data) == HttpRequest(message.method, message.url, headers, message.body_bz)


@pytest.mark.parametrize("extra", [
    b"\x12\x04\x0a\x02ab" * 4096,
    b"\x12" + wire.varint(200_005) + b"\x0a\x01a\x12" + wire.varint(199_998) + b"\x12\x00" * 99_999,
], ids=["many names", "many values of one name"])  # fmt: skip
def test_an_envelope_with_more_headers_than_any_has_is_refused_before_they_are_read(extra):
    envelope = HttpRequest("POST", "/" + "u" * 50_000, {"A": ("b",) * 1000}, b"b" * 500_000)
    assert decode_http_request(envelope.encode()) == envelope
    with pytest.raises(DecodingError, match=r"more than|headers take"):
        decode_http_request(envelope.encode() + extra)
