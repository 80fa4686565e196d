"""The supervisor of a relayer pod stays small, and its admin port answers without a web framework."""

import asyncio
import json
import subprocess
import sys
from http import HTTPStatus
from pathlib import Path

import aiohttp
import pytest

from pocket_relayer.process.plain_http import PlainResponse, PlainServer
from pocket_relayer.process.supervisor import SupervisorSettings

HEAVY = ("aiohttp", "grpc", "redis", "yaml", "pocket.api.workload", "pocket_relayer.process.worker")


@pytest.mark.processes
def test_the_supervisor_loads_nothing_that_only_its_workers_need():
    script = "import sys, pocket_relayer.process.__main__; print([m for m in sys.argv[1:] if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script, *HEAVY], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_settings_survive_the_change_of_programs():
    settings = SupervisorSettings(Path("/etc/a b.json"), Path("/data"), 2, "::", 80, "127.0.0.1", 90, 30.0, 10.5)
    assert SupervisorSettings.decode(settings.encode()) == settings


async def received(reader):
    """Return what comes until the other side ends the connection, in whichever way."""
    try:
        return await asyncio.wait_for(reader.read(), 5)
    except ConnectionError:
        return b""


async def asked(port, message):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(message)
    found = await received(reader)
    writer.transport.abort()
    return found


@pytest.fixture
async def server():
    routes = {
        "/ready": lambda: PlainResponse.of_json({"ready": False}, HTTPStatus.SERVICE_UNAVAILABLE),
        "/metrics": lambda: PlainResponse("é 1\n".encode(), "text/plain; charset=utf-8"),
    }
    server = PlainServer(routes)
    await server.start("127.0.0.1", 0)
    yield server
    await server.close()


async def test_clients_of_http_read_status_type_and_body(server):
    url = f"http://127.0.0.1:{server.port}"
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{url}/ready?verbose=1") as answer:
            assert (answer.status, await answer.json()) == (503, {"ready": False})
        async with http.get(f"{url}/metrics") as answer:
            assert (answer.status, await answer.text(), answer.content_type) == (200, "é 1\n", "text/plain")
        async with http.head(f"{url}/metrics") as answer:
            assert (answer.status, answer.headers["Content-Length"], await answer.read()) == (200, "5", b"")
        for method, path, status in (("GET", "/none", 404), ("POST", "/ready", 405)):
            async with http.request(method, url + path) as answer:
                assert answer.status == status


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (b"GET /ready HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", b"431"),
        (b"GET /ready\r\n\r\n", b"400"),
        (b"\xff\x00 \xff HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /ready HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", b"400"),
        (b"GET /ready HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", b"404"),
        (b"GET /ready HTTP/2.0\r\n\r\n", b"400"),
    ],
)
async def test_what_is_no_small_request_gets_an_error(server, message, status):
    assert (await asked(server.port, message)).split()[1] == status


async def test_clients_that_send_nothing_keep_no_other_from_an_answer_and_are_ended(server, monkeypatch):
    monkeypatch.setattr("pocket_relayer.process.plain_http._SECONDS", 0.2)
    silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(30)]
    body = (await asked(server.port, b"GET /ready HTTP/1.1\r\n\r\n")).partition(b"\r\n\r\n")[2]
    assert json.loads(body) == {"ready": False}
    for reader, writer in silent:
        assert await received(reader) == b""
        writer.transport.abort()


async def test_further_connections_are_ended_at_once(server, monkeypatch):
    monkeypatch.setattr("pocket_relayer.process.plain_http._MOST", 1)
    _, first = await asyncio.open_connection("127.0.0.1", server.port)
    assert await asked(server.port, b"GET /ready HTTP/1.1\r\n\r\n") == b""
    first.transport.abort()
