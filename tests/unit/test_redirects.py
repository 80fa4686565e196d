"""What responses may show of an endpoint's URL."""

import pytest
from multidict import CIMultiDict

from pocket.api.services import Backend
from pocket_relayer.backends.credentials import token_of
from pocket_relayer.backends.redirects import without_endpoint

KEY = "0123456789abcdef"


@pytest.mark.parametrize(("endpoint", "name", "value"), [
    ("https://node/?v=1", "Location", "/page/10"),
    ("https://node/?v=1", "Link", '</items?page=11>; rel="next"'),
    ("https://node/?network=main", "Location", "/mainnet/x"),
])  # fmt: skip
def test_a_short_value_of_the_endpoints_query_removes_no_reference(endpoint, name, value):
    assert without_endpoint(301, {name: (value,)}, b"", endpoint, "")[0] == {name: (value,)}


@pytest.mark.parametrize(("endpoint", "value"), [
    (f"https://node/?key={KEY}", f"</items?page=2&key={KEY}>"), (f"https://node/?key={KEY}", f"</{KEY}/items>"),
    ("https://node/?key=short", "</items?page=2&key=short>"),
])  # fmt: skip
def test_a_key_of_the_endpoints_query_is_never_shown(endpoint, value):
    assert without_endpoint(200, {"Link": (value,)}, b"", endpoint, "")[0] == {}


SHOWN_BY_ERRORS = [
    {"Set-Cookie": (f"s=1; Path=/v3/{KEY}", "t=2"), "X-Other": ("1",)},
    {"X-Request-Uri": (f"/v3/{KEY[:4]}%{ord(KEY[4]):02x}{KEY[5:]}/x",), "X-Other": ("1",)},
]


@pytest.mark.parametrize("headers", SHOWN_BY_ERRORS)
@pytest.mark.parametrize(
    "endpoint", [f"https://node/v3/{KEY}", f"https://node/?key={KEY}", f"https://user:{KEY}@node/"]
)
def test_neither_fields_nor_errors_repeat_a_key_of_the_endpoint(endpoint, headers):
    for status in (200, 302, 404):
        text = f"Cannot POST /v3/{KEY}/x".encode()
        kept, body = without_endpoint(status, headers, text, endpoint, "")
        assert KEY not in str(kept)
        assert kept["X-Other"] == ("1",)
        assert body == (text if status == 200 else b"")
    assert without_endpoint(404, {"X-Other": ("1",)}, b"no such page?v=1", "https://node/?v=1", "") == (
        {"X-Other": ("1",)}, b"no such page?v=1",
    )  # fmt: skip


@pytest.mark.parametrize(("auth", "name", "value"), [
    ({"type": "bearer"}, "Authorization", f"Bearer {KEY}"), ({"type": "basic"}, "Authorization", f"Basic {KEY}"),
    ({"type": "header", "header": "X-Api-Key"}, "x-api-key", KEY),
])  # fmt: skip
def test_neither_fields_nor_errors_repeat_what_authenticates_the_relayer(auth, name, value):
    backend = Backend.model_validate({"urls": ["http://node"], "auth": {**auth, "secretRef": {"name": "token"}}})
    token = token_of(backend, CIMultiDict({name: value, "Accept": "application/json"}))
    headers = {"X-Echo": (f"{name}={value}",), "Content-Type": ("application/json",)}
    for status in (200, 401):
        text = f"no such key: {value}".encode()
        assert without_endpoint(status, headers, text, "http://node", "", token) == (
            {"Content-Type": ("application/json",)}, text if status == 200 else b"",
        )  # fmt: skip
    assert token_of(Backend.model_validate({"urls": ["http://node"]}), {name: value}) == ""
