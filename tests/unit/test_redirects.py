"""What responses may show of an endpoint's URL."""

import pytest

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
