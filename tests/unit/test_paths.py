import posixpath
import time
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket_relayer.backends.paths import backend_target, grpc_method, merge_path, origin_of, public_origin


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
        ("/a", "", "/../../etc", "/a/etc"),
        ("/a", "", "/a/../admin", "/a/admin"),
        ("/a", "/b", "../c/./", "/b/c/"),
        ("", "", "/x/", "/x/"),
        ("/a", "", "//", "/a"),
        ("/a", "", "/..", "/a"),
        ("/a", "", "/x;v=1/y", "/a/x;v=1/y"),
        ("/a", "", "/.well-known/..x", "/a/.well-known/..x"),
        ("/a", "", "/x%2Fy%20z%25", "/a/x%2Fy%20z%25"),
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
    assert origin_of(endpoint) + backend_target(endpoint, base, envelope) == expected


LEAVING = [
    "/%2e%2e/x", "/%2E./x", "/.%2e/x", "/a/..%2fx", "/..%5cx", "/..;/x", "/..;a=b/x", "/%2e%2e;/x", "\\..\\x", "/a\\b",
    "/%252e%252e/x", "/%25252e%25252e/x", "/..%00/x", "/..%20/x", "/..%0d%0a/x", "/%c0%ae%c0%ae/x", "/%25c0%25ae./x",
    "/%e0%80%af..", "/%2e/x", "/a%2f..%2f..%2fx", "/%2525252525252e",
]  # fmt: skip


@pytest.mark.parametrize("path", LEAVING)
def test_what_some_server_may_read_as_a_way_out_is_refused(path):
    with pytest.raises(ValueError, match="path"):
        merge_path("/base", "", path)


SEGMENTS = st.sampled_from(
    [".", "..", "x", "", "%2e", "%2E%2e", "..;", ";", "%2f", "%5c", "%00", "base", "a%20b", "%25", "\t"]
)


@given(st.lists(SEGMENTS, max_size=8), st.sampled_from(["/", "%2f", "\\", ""]))
def test_whatever_the_path_a_server_that_decodes_it_again_and_again_stays_below_the_prefix(segments, separator):
    try:
        found = merge_path("/base/key", "", "/" + separator.join(segments))
    except ValueError:
        return
    for _ in range(6):
        place = posixpath.normpath(found.replace("\\", "/").split(";")[0])
        assert place == "/base/key" or place.startswith("/base/key/"), found
        found = unquote(found)


@pytest.mark.parametrize(("asked", "sent"), [
    ("x=1&key=mine", "key=K&x=1"), ("KEY=1&k%65y=mine", "key=K&KEY=1"), ("key", "key=K"), ("", "key=K"),
])  # fmt: skip
def test_a_parameter_of_the_configuration_is_not_given_again_by_a_client(asked, sent):
    assert backend_target("http://b:1/?key=K", "", "/?" + asked) == "/?" + sent


@pytest.mark.parametrize(("url", "told"), [
    ("https://user:pw@node.internal:8545/v2/KEY?apikey=KEY", "https://node.internal:8545"),
    ("grpc://[::1]:9090", "grpc://[::1]:9090"), ("http://[", "a URL that cannot be read"),
])  # fmt: skip
def test_an_endpoint_is_named_without_what_may_hold_a_key(url, told):
    assert public_origin(url) == told


@pytest.mark.parametrize("url", ["http://[", "//[x]/y", "/\ud800"])
def test_a_url_of_an_envelope_that_is_none_is_a_value_error(url):
    for read in (lambda: backend_target("http://b:1", "", url), lambda: grpc_method(url)):
        with pytest.raises(ValueError, match=r"."):
            read()


def test_a_grpc_method_is_the_path():
    assert grpc_method("http://x/pkg.Service/Method?x") == "/pkg.Service/Method"
    assert grpc_method("") == "/"
    with pytest.raises(ValueError, match="plain ASCII"):
        grpc_method("/pkg.Service/Me thod")


@pytest.mark.parametrize("part", ["a;/", "%41", "a=b&", ";", "\u20ac/"])
@pytest.mark.parametrize("begin", ["/", "/?"])
@pytest.mark.parametrize("call", [lambda url: backend_target("http://node/base?key=1", "", url), grpc_method])
def test_a_long_url_is_refused_before_it_takes_the_loops_time(call, begin, part):
    began = time.process_time()
    with pytest.raises(ValueError, match="longer than"):
        call(begin + part * 100_000)
    assert time.process_time() - began < 0.02
