import pytest

from relayer.paths import backend_url, grpc_method, merge_path


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
        ("http://b:1", "", "/a b?q=c d", "http://b:1/a%20b?q=c%20d"),
        ("http://b:1", "", "/a%20b%2Fc?q=%20+'\"|", "http://b:1/a%20b%2Fc?q=%20+'\"|"),
        ("http://b:1", "", "/x HTTP/1.1\r\nHost: evil", "http://b:1/x%20HTTP/1.1Host:%20evil"),
        ("http://b:1", "", "/é\x00\udcff", "http://b:1/%C3%A9%00%FF"),
    ],
)
def test_only_path_and_query_of_the_envelope_are_used(endpoint, base, envelope, expected):
    assert backend_url(endpoint, base, envelope) == expected


@pytest.mark.parametrize("url", ["http://[", "//[x]/y", "/\ud800"])
def test_a_url_of_an_envelope_that_is_none_is_a_value_error(url):
    for read in (lambda: backend_url("http://b:1", "", url), lambda: grpc_method(url)):
        with pytest.raises(ValueError, match=r"."):
            read()


def test_a_grpc_method_is_the_path():
    assert grpc_method("http://x/pkg.Service/Method?x") == "/pkg.Service/Method"
    assert grpc_method("") == "/"
    with pytest.raises(ValueError, match="plain ASCII"):
        grpc_method("/pkg.Service/Me thod")
