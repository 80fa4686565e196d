"""Answers as backends really give them: what the gateway gets is what was mined, or nothing was."""

import asyncio
import contextlib
import gzip
import time

import pytest

from pocket.protocol.relays.envelope import STREAM_DELIMITER, decode_http_response
from pocket.protocol.relays.messages import decode_mined_relay, decode_relay_response
from raw import always, answer, raw_server, read_request
from relays import relaying

pytestmark = pytest.mark.redis
TEXT = b'{"jsonrpc":"2.0","id":1,"result":"' + b"ab" * 20_000 + b'"}'
JSON = b"Content-Type: application/json\r\n"
PACKED = JSON + b"Content-Encoding: gzip\r\n"
EVENTS = b"Content-Type: text/event-stream\r\n"


@contextlib.asynccontextmanager
async def relayer_of(redis, folder, serve, path="", **backend):
    async with raw_server(serve) as place:
        fields = {"urls": [f"http://{place}{path}"], "timeoutSeconds": 5, "unhealthyThreshold": 2, **backend}
        async with relaying(redis, folder, backends={"jsonRpc": fields}) as relayer:
            yield relayer


async def served(relayer, **changes):
    """Return the status and the served envelope, which is also the mined one."""
    status, _, body = await relayer.send(relayer.request(**changes).encode())
    leaves = await relayer.leaves()
    if status != 200:
        assert leaves == []
        return status, None
    response = decode_relay_response(body)
    assert decode_mined_relay(leaves[-1])[2] == response.without_payload()
    return status, decode_http_response(response.payload)


WHOLE = {
    "one gzip member": (answer(gzip.compress(TEXT), PACKED), TEXT),
    "several gzip members": (answer(gzip.compress(TEXT[:99]) + gzip.compress(TEXT[99:]), PACKED), TEXT),
    "padded gzip members": (
        answer(gzip.compress(TEXT[:99]) + bytes(9) + gzip.compress(TEXT[99:]) + bytes(3), PACKED), TEXT,
    ),
    "gzip without a word": (answer(gzip.compress(TEXT)), TEXT),
    "a file": (answer(gzip.compress(TEXT), b"Content-Type: application/gzip\r\n"), gzip.compress(TEXT)),
    "no gzip, though it says so": (answer(TEXT, PACKED), TEXT),
    "gzip without a word, cut off": (answer(gzip.compress(TEXT)[:-9]), gzip.compress(TEXT)[:-9]),
    "a long header": (answer(TEXT, JSON + b"X-Long: " + b"y" * 40_000 + b"\r\n"), TEXT),
    "many headers": (answer(TEXT, JSON + b"".join(b"X-%d: y\r\n" % n for n in range(400))), TEXT),
    "a status of its own": (answer(TEXT, status=b"299 Odd"), TEXT),
    "a hundred provisional answers": (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100 + answer(TEXT), TEXT),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
async def test_an_unusual_answer_is_served_whole_and_its_length_is_that_of_its_body(redis, tmp_path, name):
    reply, body = WHOLE[name]
    async with relayer_of(redis, tmp_path, always(reply)) as relayer:
        status, envelope = await served(relayer)
        assert (status, envelope.body) == (200, body)
        assert envelope.headers["Content-Length"] == (str(len(body)),)
        assert ("Content-Encoding" in envelope.headers) == (name == "no gzip, though it says so")


BROKEN = {
    "no final status": answer(b"{}", status=b"101 Switching Protocols"),
    "status 999": answer(b"{}", status=b"999 X"),
    "status 600": answer(b"{}", status=b"600 X"),
    "status 0": answer(b"{}", status=b"000 X"),
    "no HTTP": b"\x16\x03\x01garbage\r\n\r\n",
    "gzip that is cut off": answer(gzip.compress(TEXT)[:-9], PACKED),
    "gzip whose second member is cut off": answer(gzip.compress(TEXT) + gzip.compress(TEXT)[:-20], PACKED),
    "a NUL in a header": answer(b"{}", JSON + b"X: a\0b\r\n"),
    "a body that is cut off": answer(TEXT)[:-5],
    "too many headers": answer(b"{}", b"".join(b"X-%d: y\r\n" % n for n in range(5000))),
    "no head": b"{}",
    **{
        f"the field {field.decode()!r}": b"HTTP/1.1 200 OK\r\n" + field + b"\r\nConnection: close\r\n\r\n{}"
        for field in (
            b"Content-Length: 2\r\nContent-Length: 4", b"Content-Length: 2\r\nContent-Length: 2", b"Content-Length: -2",
            b"Content-Length: +2", b"Content-Length: 2, 2", b"Content-Length: 99999999999999999999",
            b"Content-Length : 2", b"Transfer-Encoding: gzip", b"Transfer-Encoding : chunked", b"X: a\rb",
            b"no colon", b": no name", b"X Y: z",
        )
    },
    **{
        f"the chunks {chunks.decode()!r}": b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + chunks
        for head, chunks in (
            (b"Transfer-Encoding: chunked\r\nContent-Length: 4", b"2\r\n{}\r\n0\r\n\r\n"),
            (b"Content-Length: 4\r\nTransfer-Encoding: chunked", b"2\r\n[]\r\n0\r\n\r\n"),
            (b"Transfer-Encoding: chunked, identity", b"2\r\n{}\r\n0\r\n\r\n"),
            (b"Transfer-Encoding: chunked", b"10000000000000002\r\n{}\r\n0\r\n\r\n"),
            (b"Transfer-Encoding: chunked", b"-2\r\n{}\r\n0\r\n\r\n"),
            (b"Transfer-Encoding: chunked", b"0x2\r\n{}\r\n0\r\n\r\n"),
            (b"Transfer-Encoding: chunked", b"2\r\n{}0\r\n\r\n"),
            (b"Transfer-Encoding: chunked", b"5\r\n{}"),
            (b"Transfer-Encoding: chunked", b"2\r\n{}\r\n"),
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_answer_is_502_neither_mined_nor_taken_for_a_whole_one(redis, tmp_path, name):
    async def serve(reader, writer):
        await read_request(reader)
        writer.write(BROKEN[name])
        await writer.drain()

    async with relayer_of(redis, tmp_path, serve) as relayer:
        assert await served(relayer) == (502, None)
        assert [e.failures for e in relayer.registry.get("eth").pools["jsonRpc"].endpoints] == [1]


@pytest.mark.parametrize("reply", [BROKEN["no HTTP"], BROKEN["gzip that is cut off"], BROKEN["status 999"], b""])
async def test_a_request_that_breaks_answers_takes_no_endpoint_from_other_applications(redis, tmp_path, reply):
    async def serve(reader, writer):
        await read_request(reader)
        writer.write(reply)
        await writer.drain()

    async with relayer_of(redis, tmp_path, serve) as relayer:
        (endpoint,) = relayer.registry.get("eth").pools["jsonRpc"].endpoints
        endpoint.succeeded("another application")
        for _ in range(3):
            assert await served(relayer) == (502, None)
        assert endpoint.available(time.monotonic())


async def test_endpoints_that_cannot_be_reached_are_taken_out_for_all(redis, tmp_path):
    async with relaying(redis, tmp_path, backends={"jsonRpc": {"urls": ["http://127.0.0.1:1"]}}) as relayer:
        (endpoint,) = relayer.registry.get("eth").pools["jsonRpc"].endpoints
        endpoint.succeeded("another application")
        while endpoint.available(time.monotonic()):
            assert await served(relayer) == (502, None)
        assert endpoint.failures == endpoint.threshold


async def test_a_part_of_a_compressed_body_is_served_as_it_is(redis, tmp_path):
    part = gzip.compress(TEXT)[:20]
    reply = answer(part, PACKED + b"Content-Range: bytes 0-19/90\r\n", status=b"206 Partial Content")
    async with relayer_of(redis, tmp_path, always(reply)) as relayer:
        status, envelope = await served(relayer)
        assert (status, envelope.status, envelope.body) == (200, 206, part)
        assert envelope.headers["Content-Encoding"] == ("gzip",)


async def test_a_header_beyond_all_measure_is_502_and_not_the_endpoint_s_fault(redis, tmp_path):
    reply = answer(b"{}", JSON + b"X: " + b"y" * 100_000 + b"\r\n")
    async with relayer_of(redis, tmp_path, always(reply)) as relayer:
        assert await served(relayer) == (502, None)
        assert [e.failures for e in relayer.registry.get("eth").pools["jsonRpc"].endpoints] == [0]


async def test_headers_are_readable_and_none_of_the_connection_s_is_passed_on(redis, tmp_path):
    head = JSON + (
        b"X-Latin: Soci\xe9t\xe9\r\nX-Utf: Soci\xc3\xa9t\xc3\xa9\r\nX-Bell: a\x07b\r\n"
        b"Connection: keep-alive, X-Mine\r\nX-Mine: 1\r\n"
        b"Keep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nTrailer: Foo\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"
    )
    async with relayer_of(redis, tmp_path, always(answer(b"{}", head))) as relayer:
        _, envelope = await served(relayer)
        assert dict(envelope.headers) == {
            "Content-Type": ("application/json",), "Content-Length": ("2",), "X-Latin": ("Société",),
            "X-Utf": ("Société",), "X-Bell": ("a b",), "Set-Cookie": ("a=1", "b=2"),
        }  # fmt: skip


KEY = "SECRETAPIKEY123"
REDIRECTS = [
    ("http://{place}/v2/" + KEY + "/x?apikey=" + KEY + "&y=1#z", "/x?y=1#z"),
    ("//{place}/v2/" + KEY, "/"),
    ("/v2/" + KEY + "/x", "/x"),
    ("http://127.0.0.1:1/v2/" + KEY + "/x", "/x"),
    ("/v3/" + KEY + "/x", None),
    ("https://elsewhere.example/" + KEY, None),
    ("https://elsewhere.example/?k=SECRET%41PIKEY123", None),
    ("https://elsewhere.example/x", "https://elsewhere.example/x"),
    ("http://[", None),
]


@pytest.mark.parametrize(("location", "seen"), REDIRECTS)
async def test_a_redirect_tells_neither_keys_nor_the_host_behind_the_service(redis, tmp_path, location, seen):
    async def serve(reader, writer):
        place = "{}:{}".format(*writer.get_extra_info("sockname"))
        told = location.replace("{place}", place).encode()
        writer.write(answer(b'<a href="%s">Found</a>' % told, b"Location: %s\r\n" % told, b"302 Found"))
        await read_request(reader)

    async with relayer_of(redis, tmp_path, serve, f"/v2/{KEY}?apikey={KEY}") as relayer:
        _, envelope = await served(relayer)
        assert envelope.status == 302
        assert envelope.headers.get("Location", (None,)) == (seen,)
        assert KEY.encode() not in envelope.body.replace(b"%41", b"A")
        assert envelope.headers["Content-Length"] == (str(len(envelope.body)),)


async def test_a_stream_s_head_is_the_relayer_s_own_and_packed_events_are_unpacked(redis, tmp_path):
    events = b"data: 1\n\ndata: 2\n\n"
    head = EVENTS + (
        b"Content-Encoding: gzip\r\nSet-Cookie: a=1\r\nServer: secret-node/1.2\r\nVia: 1.1 node-7\r\n"
        b"X-Kept: caf\xe9\r\nTe: trailers\r\n"
        b"Connection: X-Mine\r\nX-Mine: 1\r\nX-Long: " + b"y" * 9000 + b"\r\nTrailer: Foo\r\nAlt-Svc: h3\r\n"
    )
    packed = gzip.compress(events[:9]) + gzip.compress(events[9:])
    async with relayer_of(redis, tmp_path, always(answer(packed, head))) as relayer:
        status, headers, body = await relayer.send(relayer.request().encode())
        parts = [decode_relay_response(part) for part in body.split(STREAM_DELIMITER) if part]
        assert (status, b"".join(decode_http_response(part.payload).body for part in parts)) == (200, events)
        assert headers.pop("Date")
        left_out = {"Set-Cookie", "Via", "Te", "X-Mine", "X-Long", "Trailer", "Alt-Svc", "Content-Encoding"}
        assert not headers.keys() & left_out
        assert "secret" not in headers.get("Server", "")
        assert (headers["Content-Type"], headers["X-Kept"]) == ("text/event-stream", "café")
        assert len(await relayer.leaves()) == 1


async def test_packed_events_that_are_cut_off_are_cut_and_not_mined(redis, tmp_path):
    reply = answer(gzip.compress(b"data: 1\n\n" * 100)[:-9], EVENTS + b"Content-Encoding: gzip\r\n")
    async with relayer_of(redis, tmp_path, always(reply)) as relayer:
        with contextlib.suppress(Exception):
            await relayer.send(relayer.request().encode())
        assert await relayer.leaves() == []


async def test_a_kept_connection_that_the_backend_closed_costs_nobody_anything(redis, tmp_path):
    connections = []

    async def once_each(reader, writer):
        connections.append(writer)
        if await read_request(reader) is not None:
            writer.write(answer(b"{}"))
            await reader.read(10)  # the next request comes, nothing of it is answered

    async with relayer_of(redis, tmp_path, once_each, maxRetries=0) as relayer:
        for n in range(6):
            assert (await served(relayer, body=b'{"n":%d}' % n))[0] == 200
        assert [e.failures for e in relayer.registry.get("eth").pools["jsonRpc"].endpoints] == [0]
        assert len(connections) == 6


async def test_a_new_connection_that_ends_without_an_answer_is_asked_once_and_counts(redis, tmp_path):
    seen = []

    async def serve(reader, writer):
        seen.append(await read_request(reader))
        if len(seen) < 2:
            writer.write(answer(b"{}"))
            seen.append(await read_request(reader))

    async with relayer_of(redis, tmp_path, serve, maxRetries=0) as relayer:
        assert (await served(relayer))[0] == 200
        assert (await relayer.send(relayer.request(body=b"2").encode()))[0] == 502
        assert len(seen) == 3, "the kept connection, then one new one"
        assert [e.failures for e in relayer.registry.get("eth").pools["jsonRpc"].endpoints] == [1]


async def test_part_of_an_answer_on_a_kept_connection_is_not_asked_for_again(redis, tmp_path):
    seen = []

    async def serve(reader, writer):
        seen.append(await read_request(reader))
        writer.write(answer(b"{}"))
        seen.append(await read_request(reader))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        await writer.drain()

    async with relayer_of(redis, tmp_path, serve, maxRetries=0) as relayer:
        assert (await served(relayer))[0] == 200
        assert (await relayer.send(relayer.request(body=b"2").encode()))[0] == 502
        assert len(seen) == 2


async def test_a_waiting_backend_is_left_at_its_timeout_whatever_it_began(redis, tmp_path):
    gate = asyncio.Event()

    async def silent(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        await gate.wait()

    async with relayer_of(redis, tmp_path, silent, timeoutSeconds=0.2) as relayer:
        assert await served(relayer) == (502, None)
        gate.set()
