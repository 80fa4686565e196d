"""Requests whose end can be read in two ways: one behind another is never served, alone or with nginx in front."""

import asyncio
import contextlib
import os
import shutil
import subprocess
from urllib.parse import urlsplit

import pytest

from hostile_clients import until
from pocket_relayer.transports.request_router import RequestRouter
from relayctl.local_ports import free_port
from relays import relaying
from servers import wait_for_port

pytestmark = pytest.mark.redis
HIDDEN = b"POST /hidden HTTP/1.1\r\nHost: relayer\r\nContent-Length: 1\r\n\r\nx"
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)

ATTEMPTS = {
    "both lengths": b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "both lengths, the other way": b"Transfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n0\r\n\r\n%s"
    % (5 + len(HIDDEN), HIDDEN),
    "two lengths": b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n%s" % (len(HIDDEN), HIDDEN),
    "a list of lengths": b"Content-Length: 0, %d\r\n\r\n%s" % (len(HIDDEN), HIDDEN),
    "a length with a sign": b"Content-Length: +0\r\n\r\n" + HIDDEN,
    "a length in hexadecimal": b"Content-Length: 0x0\r\n\r\n" + HIDDEN,
    "a negative length": b"Content-Length: -1\r\n\r\n" + HIDDEN,
    "a blank before the colon": b"Content-Length : %d\r\n\r\n%s" % (len(HIDDEN), HIDDEN),
    "a blank after an encoding": b"Transfer-Encoding : chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + HIDDEN,
    "an encoding with a tab": b"Transfer-Encoding:\tchunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + HIDDEN,
    "an encoding with another": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + HIDDEN,
    "an unknown encoding": b"Transfer-Encoding: xchunked\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "two encodings": b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a folded encoding": b"Transfer-Encoding:\r\n chunked\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "a chunk length with a sign": b"Transfer-Encoding: chunked\r\n\r\n+0\r\n\r\n" + HIDDEN,
    "a chunk length in words": b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n" + HIDDEN,
    "a chunk length that overflows": b"Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n" + HIDDEN,
    "a chunk that ends early": b"Transfer-Encoding: chunked\r\n\r\n1\r\nxy0\r\n\r\n" + HIDDEN,
    "a length above 64 bits": b"Content-Length: 18446744073709551616\r\n\r\n" + HIDDEN,
    "a length in two words": b"Content-Length: 0 %d\r\n\r\n%s" % (len(HIDDEN), HIDDEN),
    "a length with an underscore": b"Content-Length: 1_0\r\n\r\n" + HIDDEN,
    "a length in a folded line": b"Content-Length:\r\n %d\r\n\r\n%s" % (len(HIDDEN), HIDDEN),
    "an encoding after a vertical tab": b"Transfer-Encoding: \x0bchunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n"
    + HIDDEN,
    "an encoding behind a comma": b"Transfer-Encoding: , chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + HIDDEN,
    "an encoding with a parameter": b"Transfer-Encoding: chunked;q=1\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a chunk extension with LF": b"Transfer-Encoding: chunked\r\n\r\n0;a\n\r\n" + HIDDEN,
    "a chunk that ends with LF": b"Transfer-Encoding: chunked\r\n\r\n1\nx\n0\n\n" + HIDDEN,
    "a blank after a chunk length": b"Transfer-Encoding: chunked\r\n\r\n0 \r\n\r\n" + HIDDEN,
    "a trailer that is a length": b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 4\n\r\n" + HIDDEN,
    "a header without a name": b": x\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "a header without a colon": b"Content-Length\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "lines that end with LF": b"Content-Length: 0\n\n" + HIDDEN,
    "a header line with a NUL": b"X: a\0b\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "a lonely CR in a header": b"X: a\rContent-Length: %d\r\nContent-Length: 0\r\n\r\n%s" % (len(HIDDEN), HIDDEN),
}
HONEST = {
    "a body that looks like a request": b"Content-Length: %d\r\n\r\n%s" % (len(HIDDEN), HIDDEN),
    "chunks that look like a request": b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED,
}


@contextlib.contextmanager
def nginx_before(url, folder):
    """Nginx as people put it in front: connections to the relayer are kept and shared by clients."""
    port, parts = free_port(), urlsplit(url)
    (folder / "nginx.conf").write_text(f"""
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  log_format passed '$request_uri $upstream_addr'; access_log {folder}/access.log passed;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream relayer {{ server {parts.netloc}; keepalive 1; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://relayer; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
""")
    process = subprocess.Popen([shutil.which("nginx"), "-c", str(folder / "nginx.conf"), "-p", str(folder)])
    try:
        wait_for_port(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


async def exchange(url, raw, seconds=1.5):
    """Send all bytes and read until the peer closes or stays silent for a while."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    answer = b""
    try:
        writer.write(raw)
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(seconds):
                while data := await reader.read(65536):
                    answer += data
    finally:
        writer.close()
    return answer


@pytest.fixture
def paths(monkeypatch):
    seen, answer = [], RequestRouter.answer

    async def watched(self, asked):
        seen.append(asked.path)
        return await answer(self, asked)

    monkeypatch.setattr(RequestRouter, "answer", watched)
    return seen


@contextlib.asynccontextmanager
async def before(relayer, folder, front):
    if front == "alone":
        yield relayer.url
    elif shutil.which("nginx") is None and not os.environ.get("CI"):
        pytest.skip("nginx is not installed")
    else:
        with nginx_before(relayer.url, folder) as url:
            yield url


@pytest.mark.parametrize("front", ["alone", "nginx"])
async def test_a_request_behind_an_ambiguous_one_is_never_served_and_the_next_client_gets_its_own_answer(
    redis, tmp_path, paths, front
):
    async with relaying(redis, tmp_path) as relayer, before(relayer, tmp_path, front) as url:
        async with asyncio.TaskGroup() as group:
            for raw in ATTEMPTS.values():
                group.create_task(exchange(url, b"POST /first HTTP/1.1\r\nHost: relayer\r\n" + raw))
        for number in range(5):
            request = relayer.request(body=b'{"id":%d}' % number)
            async with relayer.http.post(url + "/relay", data=request.encode()) as answer:
                assert answer.status == 200
        if front == "alone":
            assert "/hidden" not in paths
        else:
            # What nginx takes for two requests on one connection are two: it must be what the relayer takes them for.
            def logged():
                rows = (line.split() for line in (tmp_path / "access.log").read_text().splitlines())
                return sorted(path for path, upstream in rows if upstream != "-")

            await until(lambda: len(logged()) >= len(paths))  # it logs a request after its answer
            assert sorted(paths) == logged()


async def test_a_request_behind_an_ambiguous_one_is_not_served_after_a_relay_on_the_same_connection(
    redis, tmp_path, paths
):
    async with relaying(redis, tmp_path) as relayer:

        async def after_a_relay(number, raw):
            body = relayer.request(body=b"%d" % number).encode()
            relay = b"POST /relay HTTP/1.1\r\nHost: relayer\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
            return await exchange(relayer.url, relay + b"POST /first HTTP/1.1\r\nHost: relayer\r\n" + raw, 6)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(after_a_relay(n, raw)) for n, raw in enumerate(ATTEMPTS.values())]
        assert {task.result()[:12] for task in tasks} == {b"HTTP/1.1 200"}
        assert "/hidden" not in paths


@pytest.mark.parametrize("front", ["alone", "nginx"])
@pytest.mark.parametrize("raw", HONEST.values(), ids=HONEST)
async def test_what_looks_like_a_request_within_a_body_is_body(redis, tmp_path, paths, front, raw):
    async with relaying(redis, tmp_path) as relayer, before(relayer, tmp_path, front) as url:
        answer = await exchange(url, b"POST /first HTTP/1.1\r\nHost: relayer\r\nConnection: close\r\n" + raw, 20)
        assert answer.startswith(b"HTTP/1.1 400")
        assert paths == ["/first"]
