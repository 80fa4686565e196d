"""Public URLs of stakes: names, connections, certificates."""

import asyncio
import contextlib
import socket
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pocket.chain.model import ServiceConfig, StakedSupplier
from pocket.runtime.own_authorities import client_context
from pocket.runtime.public_urls import PublicUrlChecker
from pocket_miner.status.report import SupplierReport

TLS = Path(__file__).parents[1] / "support/tls"
NOW = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
# The good certificate ends at the end of 2125.
LATE = datetime(2125, 12, 20, tzinfo=UTC).timestamp()


@contextlib.asynccontextmanager
async def listening(certificate=None, host="127.0.0.1"):
    """Open a port that accepts connections, with TLS if a certificate is given."""
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(TLS / certificate)

    async def greet(reader, writer):
        writer.write(b"220 this is no TLS record\r\n")
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(greet, host, 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


def endpoints(now=NOW):
    trust = client_context(TLS / "authority.pem")
    return PublicUrlChecker(lambda: now, seconds=5.0, trust=trust)


async def looked(url, now=NOW):
    looking = endpoints(now)
    await looking.probe([url])
    return looking.problems([url])


@pytest.mark.parametrize("scheme", ["http", "ws", "grpc"])
async def test_what_takes_connections_is_fine(scheme):
    async with listening() as port:
        assert await looked(f"{scheme}://localhost:{port}/v1") == []


@pytest.mark.parametrize("scheme", ["https", "wss", "grpcs"])
async def test_what_shows_a_good_certificate_is_fine_until_it_ends_soon(scheme):
    async with listening("good.pem") as port:
        url = f"{scheme}://localhost:{port}"
        assert await looked(url) == []
        assert await looked(url, LATE) == [f"{url}: its certificate expires on 2125-12-30"]


@pytest.mark.parametrize(("certificate", "said"), [
    ("expired.pem", "its certificate is invalid: certificate has expired"),
    ("stranger.pem", "its certificate is invalid: self-signed certificate"),
    (None, "it does not speak TLS"),
])  # fmt: skip
async def test_what_is_wrong_with_a_certificate_is_said(certificate, said):
    async with listening(certificate) as port:
        url = f"https://localhost:{port}"
        (found,) = await looked(url)
    assert said in found


async def test_a_certificate_for_another_name_does_not_hold():
    async with listening("good.pem", "127.0.0.2") as port:
        (found,) = await looked(f"https://127.0.0.2:{port}")
    assert "its certificate is invalid: IP address mismatch" in found


@pytest.mark.parametrize(("url", "said"), [
    ("http://127.0.0.1:1", "it cannot be reached (connection refused)"),
    ("ftp://x", "not a URL that a gateway can connect to"),
    ("http://", "not a URL that a gateway can connect to"),
    ("http://localhost:99999", "not a URL that a gateway can connect to"),
    ("http://" + "a" * 70 + ".example", "not a URL that a gateway can connect to"),
    ("no url at all", "not a URL"),
    ("http://[::1", "not a URL that a gateway can connect to"),
    ("https://[node]/v1", "not a URL that a gateway can connect to"),
    ("http://node\x00", "not a URL that a gateway can connect to"),
])  # fmt: skip
async def test_what_leads_nowhere_is_said_in_words(url, said):
    (found,) = await looked(url)
    assert said in found


async def test_a_name_that_does_not_resolve_is_said(monkeypatch):
    """Without asking a name server: how long one takes to say no depends on the machine."""

    async def nobody(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", nobody)
    assert await looked("https://name.invalid") == ["https://name.invalid: its host name does not resolve"]


async def test_a_url_that_many_suppliers_declare_is_tried_once_and_shown_without_its_secrets():
    tried, came = [], asyncio.Event()

    def count(_, writer):
        tried.append(writer)
        came.set()
        writer.close()

    server = await asyncio.start_server(count, "127.0.0.1", 0)
    async with server:
        url = f"http://localhost:{server.sockets[0].getsockname()[1]}"
        looking = endpoints()
        await looking.probe([url] * 5)
        await came.wait()
    assert len(tried) == 1
    secret = "http://user:secret@127.0.0.1:1/key?token=secret"
    await looking.probe([secret])
    assert looking.problems([secret, url]) == ["http://127.0.0.1:1: it cannot be reached (connection refused)"]


async def test_a_silent_address_costs_no_more_than_its_deadline():
    async def never(*_, **__):
        await asyncio.Event().wait()

    looking = PublicUrlChecker(lambda: NOW, seconds=0.05)
    looking._reach = never
    await looking.probe(["http://localhost"])
    assert looking.problems(["http://localhost"]) == ["http://localhost: no connection within 0.05 s"]


def test_only_the_urls_of_what_is_in_force_are_looked_at():
    report = SupplierReport()
    history = (
        ServiceConfig("eth", 1, 0, endpoints=((3, "https://a"), (2, "wss://a"))),
        ServiceConfig("old", 1, 9, endpoints=((3, "https://gone"),)),
    )
    report.record_stake(StakedSupplier("s", "o", 1, frozenset({"eth"}), 0, history))
    assert report.urls == ["https://a", "wss://a"]
    report.record_stake(None)
    assert report.urls == []
