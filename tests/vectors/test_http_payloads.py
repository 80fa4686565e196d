import pytest

from corpus import load, numbered, unhex
from pocket.protocol.relays.envelope import (
    HttpRequest,
    HttpResponse,
    canonical_headers,
    decode_http_request,
    decode_http_response,
    url_text,
)

DATA = load("http_payloads")


def pairs(rows):
    return canonical_headers([(name, value) for name, value in rows or []])


@pytest.mark.parametrize(("index", "case"), numbered(DATA["requests"]))
def test_a_request_envelope_equals_the_reference(index, case):
    fields = case["input"]
    request = HttpRequest(fields["method"], url_text(fields["url"]), pairs(fields["headers"]), unhex(fields["body"]))
    assert request.encode().hex() == case["encoded"]
    assert request.rpc_type() == case["rpc_type"]
    assert {name: list(values) for name, values in request.headers.items()} == case["message"]["header"]
    assert decode_http_request(request.encode()) == request


@pytest.mark.parametrize(("index", "case"), numbered(DATA["responses"]))
def test_a_response_envelope_equals_the_reference(index, case):
    fields = case["input"]
    response = HttpResponse(fields["status"], pairs(fields["headers"]), unhex(fields["body"]))
    assert response.encode().hex() == case["encoded"]
    assert decode_http_response(response.encode()) == response
