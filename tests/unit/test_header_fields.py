"""Headers on their way to a backend: none that could be read as another, none that frames, none that is ours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket.protocol.relays.envelope import HttpRequest
from pocket_relayer.backends.header_fields import check_method, request_headers
from pocket_relayer.limits.rejection import Rejected, RejectionReason

EXTRA = {"Pocket-Supplier": "pokt1a"}
CONFIGURED = {"X-Api-Key": "SECRET"}


def sent(headers, outer=None):
    made = request_headers(HttpRequest("POST", "/", headers, b""), outer or {}, EXTRA, CONFIGURED)
    return [(name, value) for name, value in made.items() if name != "Accept-Encoding"]


OURS = [("Pocket-Supplier", "pokt1a"), ("X-Api-Key", "SECRET")]


@pytest.mark.parametrize("name", [
    "", " ", "Transfer-Encoding ", "Transfer-Encoding\t", " X", "\tX", "X:", "Transfer-Encoding:chunked\x0b",
    "X\r\nInj", "Hé", "Te\x17", "X\0", "(X)", "X\nY", "\u212aeep-Alive",
])  # fmt: skip
def test_a_header_name_that_is_no_token_is_refused(name):
    for values in (("1",), ()):
        with pytest.raises(Rejected) as refused:
            sent({name: values})
        assert refused.value.reason is RejectionReason.INVALID_REQUEST


@pytest.mark.parametrize("value", ["a\r\nInj: 1", "a\nInj: 1", "a\rb", "a\0b", "\x7f", "a\r\n b"])
def test_a_header_value_with_a_control_character_is_refused(value):
    with pytest.raises(Rejected, match="control character"):
        sent({"X": ("fine", value)})
    with pytest.raises(Rejected, match="control character"):
        sent({}, {"Pocket-Trace": value})


@pytest.mark.parametrize("name", [
    "Transfer-Encoding", "transfer_encoding", "Content_Length", "CONTENT-LENGTH", "Host", "Connection", "Te", "Upgrade",
    "Expect", "Keep-Alive", "Proxy-Authorization", "HTTP2-Settings", "X-Api-Key", "x_api_key",
    "Pocket_Supplier", "Pocket-Supplier", "X-Forwarded-For", "X_Real_IP", "X-Original-URL", "X-HTTP-Method-Override",
    "Accept-Encoding", "X-Forwarded-User", "X-Forwarded-Client-Cert", "X_Forwarded_Email", "Remote-User",
    "X-Remote-User", "X-Auth-Request-Email", "X-Client-IP", "True-Client-Ip", "X-Original-Method",
    "X-Envoy-Original-Path", "Client-Cert",
])  # fmt: skip
def test_what_frames_a_message_or_is_set_by_us_is_never_taken_from_a_client(name):
    assert sent({name: ("chunked",)}) == OURS


def test_what_connection_names_belongs_to_the_connection():
    assert sent({"Connection": ("close, X-Mine", "x-other"), "X-Mine": ("1",), "X-Other": ("1",), "X": ("1",)}) == [
        ("X", "1"), *OURS,
    ]  # fmt: skip


@given(st.text(max_size=6), st.text(max_size=6))
def test_whatever_is_sent_is_one_line_with_one_name(name, value):
    try:
        rows = sent({name: (value,)})
    except Rejected:
        return
    for known, text in rows:
        assert known.isascii()
        assert not set(known) & set(" \t\r\n:\0")
        assert not set(text) & set("\r\n\0")


def test_more_headers_than_any_request_has_are_refused():
    assert len(sent({f"X-{n}": ("1",) for n in range(256)})) == 256 + len(OURS)
    with pytest.raises(Rejected, match="more than 256"):
        sent({"X": ("1",) * 257})


@pytest.mark.parametrize("method", ["CONNECT", "TRACE", "PRI", "FOO", "get", "GET /x HTTP/1.1\r\nA:", " "])
def test_methods_that_backends_are_not_asked_with_are_405(method):
    with pytest.raises(Rejected) as refused:
        check_method(method)
    assert (refused.value.reason, refused.value.status) == (RejectionReason.METHOD_NOT_ALLOWED, 405)
    check_method("GET")
    check_method("")
