"""What a backend gets and what of its response is shown: the values at each bound, by tables."""

import base64
import gzip

import pytest

from pocket.errors import DecodingError
from pocket.protocol.relays.envelope import HttpRequest
from pocket_relayer.backends.framing import Framing
from pocket_relayer.backends.grpc_calls import _shown
from pocket_relayer.backends.header_fields import request_headers
from pocket_relayer.backends.http_calls import _media_type
from pocket_relayer.backends.redirects import without_endpoint
from pocket_relayer.backends.response_bodies import plain_body
from pocket_relayer.limits.rejection import Rejected
from pocket_relayer.transports.client_timeouts import ClientTimeouts
from pocket_relayer.transports.grpc_relays import _read_message

TEXT = b"{}" * 50
PACKED = gzip.compress(TEXT, mtime=0)
GZIP = {"Content-Encoding": ("gzip",), "Content-Length": (str(len(PACKED)),)}


@pytest.mark.parametrize(
    ("name", "sent"),
    [("X_Trace", True), ("Pocket-Other", True), ("Pocket_Other", False), ("pocket_other", False), ("X-Pocket_A", True)],
)
def test_only_another_spelling_of_pocket_fields_is_left_out(name, sent):
    headers = request_headers(HttpRequest("POST", "/", {name: ("1",)}, b""), {}, {}, {})
    assert (name in headers) is sent


def test_fields_of_the_outer_request_fill_gaps_and_replace_nothing():
    request = HttpRequest("POST", "/", {"Accept": ("a/b",)}, b"")
    headers = request_headers(request, {"Accept": "c/d", "User-Agent": "outer", "X-Other": "1"}, {}, {})
    assert (headers.getall("Accept"), headers["User-Agent"], "X-Other" in headers) == (["a/b"], "outer", False)


@pytest.mark.parametrize("status", [200, 299, 300, 302, 399, 400, 404])
def test_the_text_of_a_redirect_that_repeats_the_address_is_left_out(status):
    headers = {"Location": ("/page",), "Content-Length": ("9",)}
    kept, body = without_endpoint(status, headers, b"see node:8545", "http://node:8545/", "")
    redirects = 300 <= status < 400
    assert body == (b"" if redirects else b"see node:8545")
    assert kept == {"Location": ("/page",), "Content-Length": ("0" if redirects else "9",)}


def message(body, flag=0):
    return bytes([flag]) + len(body).to_bytes(4, "big") + body


def test_a_packed_message_may_have_exactly_the_limit_and_is_alone():
    assert Framing(len(TEXT)).one(message(PACKED, 1), "gzip") == TEXT
    for body in (message(PACKED, 1), b"", message(TEXT) * 2):
        with pytest.raises(DecodingError):
            Framing(len(TEXT) - 1).one(body, "gzip")


def test_binary_metadata_is_shown_as_base64_without_its_padding():
    rows = _shown([("a-bin", b"\xff"), ("b-bin", b"abc"), ("c", "text==")])
    assert rows == [("a-bin", "/w"), ("b-bin", "YWJj"), ("c", "text==")]
    assert _shown(None) == []


@pytest.mark.parametrize(
    ("headers", "body", "kept"),
    [
        (GZIP, PACKED, ({"Content-Length": ("100",)}, TEXT)), (GZIP, b"", (GZIP, b"")), (GZIP, TEXT, (GZIP, TEXT)),
        ({}, PACKED, ({}, TEXT)), ({}, TEXT, ({}, TEXT)),
        ({"Content-Type": ("application/json",)}, PACKED, ({"Content-Type": ("application/json",)}, TEXT)),
        ({"Content-Type": ("application/gzip",)}, PACKED, ({"Content-Type": ("application/gzip",)}, PACKED)),
    ],
)  # fmt: skip
async def test_gzip_is_unpacked_where_it_is_declared_or_text_is_promised(headers, body, kept):
    assert await plain_body(headers, body, len(TEXT)) == kept
    if kept[1] == TEXT != body:
        with pytest.raises(Rejected):
            await plain_body(headers, body, len(TEXT) - 1)


@pytest.mark.parametrize(
    ("headers", "media"),
    [
        ({}, ""), ({"Content-Type": ("Text/Event-Stream ; charset=utf-8",)}, "text/event-stream"),
        ({"Content-Type": ("a/b", "c/d")}, "a/b"),
    ],
)  # fmt: skip
def test_a_media_type_has_no_parameters_and_no_case(headers, media):
    assert _media_type(headers) == media


def test_each_64_kib_add_a_second_to_both_limits_of_a_client():
    timeouts = ClientTimeouts()
    assert [timeouts.to_read(size) for size in (0, 65536, 655360)] == [15, 16, 25]
    assert [timeouts.to_write(size) for size in (0, 65536, 655360)] == [30, 31, 40]


class GrpcRequest:
    """A request of a gRPC client, with the messages that were unpacked."""

    reservation = None

    def __init__(self, body, encoding):
        self.body, self.headers, self.decoder = body, {"grpc-encoding": encoding} if encoding else {}, self
        self.unpacked = []

    async def read(self):
        return self.body

    async def decode(self, body, limit, _):
        self.unpacked.append((body, limit))
        return gzip.decompress(body)


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize(
    ("flag", "encoding", "unpacked"), [(1, "gzip", 1), (0, "gzip", 0), (0, "", 0), (1, "", None), (1, "zstd", None)]
)
async def test_a_grpc_message_is_unpacked_where_its_flag_and_the_encoding_say_so(flag, encoding, unpacked, text):
    body = message(PACKED if flag else TEXT, flag)
    request = GrpcRequest(base64.b64encode(body) if text else body, encoding)
    if unpacked is None:
        with pytest.raises(Rejected, match="invalid gRPC message"):
            await _read_message(request, 1000, text=text)
        return
    assert await _read_message(request, 1000, text=text) == TEXT
    assert request.unpacked == [(PACKED, 1000)] * unpacked
