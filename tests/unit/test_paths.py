import pytest

from relayer.paths import backend_url, merge_path


@pytest.mark.parametrize(
    ("endpoint", "base", "request_path", "expected"),
    [
        ("", "", "/", "/"),
        ("/", "", "/x", "/x"),
        ("/v1", "", "/", "/v1"),
        ("/v1", "", "/x", "/v1/x"),
        ("/v1/", "", "/v1/x", "/v1/x"),
        ("/v1", "", "/v1", "/v1"),
        ("/v1", "", "/v10/x", "/v1/v10/x"),
        ("/v1", "/b", "/x", "/b/x"),
        ("/v1", "/b", "/b/x", "/b/x"),
        ("/a", "", "/x//y/../z", "/a/x/z"),
        ("/a", "", "/../../etc", "/etc"),
        ("", "", "/x/", "/x/"),
    ],
)
def test_paths_are_merged_without_repetition_and_cleaned(endpoint, base, request_path, expected):
    assert merge_path(endpoint, base, request_path) == expected


@pytest.mark.parametrize(
    ("endpoint", "base", "envelope", "expected"),
    [
        ("http://b:1", "", "https://evil.example/x?q=1", "http://b:1/x?q=1"),
        ("http://b:1/p?k=v", "", "http://g/x?q=1", "http://b:1/p/x?k=v&q=1"),
        ("http://b:1", "/b", "", "http://b:1/b"),
        ("http://b:1", "", "//evil/x", "http://b:1/x"),
    ],
)
def test_only_path_and_query_of_the_envelope_are_used(endpoint, base, envelope, expected):
    assert backend_url(endpoint, base, envelope) == expected
