"""The console's pages: what a hostile name, host or page of another origin can do, which is nothing."""

import asyncio
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import pytest

import pocket_console
from console_miner import StatusServer, collected, opened_console
from console_snapshots import ALICE, ended, lost, opened, supplier
from kube import eventually
from pocket.api.miner_status import ChainNote, Explanation
from pocket_console.assets import asset_url, files, vendored
from pocket_console.formatting import amount, duration, milliseconds, number, percent, rate, short, size
from pocket_console.pages import _link, _with_query
from pocket_console.server import Console, host_of, serving
from pocket_console.snapshot import Links

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
QUOTED = quote(HOSTILE, safe="")
FOLDER = Path(pocket_console.__file__).parent
VENDORS = [FOLDER / "assets", Path(__file__).parents[1] / "browser"]
PAGES = ["/", "/sessions", "/suppliers", "/services", "/fleet"]


class Tags(HTMLParser):
    """Collects tags with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def full():
    session = opened(1)
    server = StatusServer([session, opened(2, closing=True)], [ended(1), lost(2)], [supplier()])
    server.explanations[session.supplier, session.session_id] = Explanation(
        supplier=session.supplier, session_id=session.session_id, open=session,
        facts=(("root", "ab" * 32),), transactions=(("claim", "CD" * 32),),
    )  # fmt: skip
    return server


def hostile():
    """Return a miner whose every text is an attack."""
    texts = {"service_id": HOSTILE, "application": HOSTILE, "supplier": HOSTILE}
    session = opened(1, problem=HOSTILE, session_id="0" * 60 + HOSTILE, **texts)
    server = StatusServer(
        [session], [lost(2, **texts)], [supplier(HOSTILE, services=(HOSTILE,), last={HOSTILE: HOSTILE}, staked=False,
                                                 earned_by={HOSTILE: 1}, days={})],
        chain=(ChainNote(reason=HOSTILE, text=HOSTILE),), version=HOSTILE, nodes={HOSTILE: {"health": HOSTILE}},
        redis={"problem": HOSTILE}, volume={"total": 9, "free": 3, "problem": HOSTILE}, phase=HOSTILE,
        problems=({"code": "", "message": HOSTILE},),
    )  # fmt: skip
    server.report |= {
        "problems": [HOSTILE],
        "unhealthy": [{"service": HOSTILE, "endpoint": HOSTILE, "problem": HOSTILE}],
        "budgets": [{"service": HOSTILE, "application": HOSTILE, "limit_upokt": 9, "over_budget": 1}],
    }
    server.explanations[HOSTILE, session.session_id] = Explanation(
        supplier=HOSTILE, session_id=session.session_id, open=session, facts=((HOSTILE, HOSTILE),),
        transactions=((HOSTILE, HOSTILE),),
    )  # fmt: skip
    return server, session


@pytest.mark.parametrize("path", PAGES)
async def test_every_page_is_one_document_with_strict_headers_and_nothing_inline(path):
    async with collected(full()) as collector, opened_console(collector) as get:
        await collector.once()
        status, text, headers = await get(path)
        assert status == 200
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Cache-Control"] == "no-store"
        for tag, attributes in Tags(text).found:
            assert tag != "style"
            assert not [name for name in attributes if name.startswith("on") or name == "style"]
            if tag == "script":
                assert attributes["src"].startswith("/assets/")


async def test_every_text_of_a_miner_is_escaped():
    server, session = hostile()
    async with collected(server) as collector, opened_console(collector) as get:
        await collector.once()
        of_session = quote(session.session_id, safe="")
        links = [*PAGES]
        links += [f"/sessions/{QUOTED}/{of_session}", f"/suppliers/{QUOTED}"]
        links += [f"/sessions?service={QUOTED}&supplier={QUOTED}&session={QUOTED}"]
        for path in links:
            status, text, _ = await get(path)
            assert status == 200, path
            assert "<script>alert" not in text
            assert "<img src=x" not in text
            for tag, attributes in Tags(text).found:
                assert not (tag == "img" and attributes.get("src") == "x")
                assert "onerror" not in attributes
        assert HOSTILE.replace("<", "&lt;").replace(">", "&gt;").replace('"', "&#34;").replace("'", "&#39;") in text


async def test_the_session_page_shows_what_the_miner_explains_with_links_to_the_chain():
    links = Links("http://explorer/block/{height}", "http://explorer/tx/{hash}", "")
    server = full()
    async with collected(server) as collector, opened_console(collector, links=links) as get:
        await collector.once()
        path = f"/sessions/{ALICE}/{opened(1).session_id}"
        _, text, _ = await get(path)
        assert "ab" * 32 in text
        assert f'href="http://explorer/tx/{"CD" * 32}"' in text
        assert 'href="http://explorer/block/112"' in text
        server.fails.add("/status/session")
        status, text, _ = await get(path)
        assert status == 200
        assert "Only what was last reported is shown: HTTP 503" in text
        assert (await get(f"/sessions/{ALICE}/{'f' * 64}"))[0] == 404


@pytest.mark.parametrize("path", ["/nowhere", "/assets/nothing.js", "/assets/../server.py", "/suppliers/pokt1nobody"])
async def test_what_does_not_exist_is_not_found(path):
    async with collected(full()) as collector, opened_console(collector) as get:
        await collector.once()
        status, _, headers = await get(path)
        assert status == 404
        assert "Content-Security-Policy" in headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_nothing_can_be_changed(method):
    async with collected(full()) as collector, opened_console(collector) as get:
        assert (await get("/", method))[0] == 405
        assert (await get("/sessions", method))[0] == 405


@pytest.mark.parametrize(
    ("host", "served"),
    [("127.0.0.1:8900", True), ("localhost", True), ("[::1]:8900", True), ("console.example.com", True),
     ("evil.example", False), ("127.0.0.1.evil.example", False), ("", False), ("[::1", False)],
)  # fmt: skip
async def test_only_known_host_names_are_served(host, served):
    async with collected(full()) as collector, opened_console(collector, hosts=["Console.Example.com"]) as get:
        for path in ("/", "/events" if not served else "/fleet", "/assets/console.js"):
            status, text, _ = await get(path, Host=host)
            assert status == (200 if served else 421)
            assert served or "pokt1" not in text


async def test_an_ipv6_address_is_served_under_the_url_that_the_command_prints():
    async with collected(full()) as collector, opened_console(collector, hosts=["FD00::1"]) as get:
        assert (await get("/", Host="[fd00::1]:8900"))[0] == 200
        assert (await get("/", Host="[fd00::2]:8900"))[0] == 421


def test_host_names_are_read_without_their_port():
    assert [host_of(text) for text in ("LocalHost:80", "[::1]:80", "[::1]", "a.b")] == [
        "localhost", "[::1]", "[::1]", "a.b"
    ]  # fmt: skip


async def test_each_snapshot_is_an_event_and_the_number_of_streams_is_bounded(monkeypatch):
    monkeypatch.setattr("pocket_console.server._STREAMS", 1)
    async with collected(full()) as collector, opened_console(collector) as get:
        await collector.once()
        url = get.server.make_url("/events")
        async with get.http.get(url) as stream:
            assert stream.content_type == "text/event-stream"
            assert (await stream.content.readuntil(b"\n\n")) == b"retry: 2000\n\n"
            await collector.once()
            async with asyncio.timeout(5):
                assert (await stream.content.readuntil(b"\n\n")) == b"id: 2\nevent: snapshot\ndata: 2\n\n"
            assert (await get("/events"))[0] == 503


async def test_a_page_that_is_closed_gives_its_stream_back_at_once(monkeypatch):
    monkeypatch.setattr("pocket_console.server._STREAMS", 1)
    async with collected(full()) as collector, serving(Console(collector), "127.0.0.1", 0) as port:
        for _ in range(3):
            assert await eventually(lambda: streams(port), seconds=5, pause=0.01)


async def streams(port):
    """Open the stream of events, and close it once its beginning or its refusal is there."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    status = await reader.readline()
    writer.close()
    return b" 200 " in status


async def test_a_page_of_an_error_is_not_fetched_again():
    async with collected(full()) as collector, opened_console(collector) as get:
        await collector.once()
        assert "hx-get" in (await get("/fleet"))[1]
        assert "hx-get" not in (await get("/nothing/here"))[1]


async def test_a_page_before_the_first_poll_is_empty_and_not_an_error():
    async with collected(full()) as collector, opened_console(collector) as get:
        for path in PAGES:
            status, text, _ = await get(path)
            assert status == 200
        assert "No relayer or miner is known yet" in text


async def test_a_miner_that_does_not_answer_is_named_on_every_page():
    server = full()
    server.fails |= {"/status/state"}
    async with collected(server) as collector, opened_console(collector) as get:
        await collector.once()
        for path in PAGES:
            _, text, _ = await get(path)
            assert "1 of 2 processes does not answer" in text
        assert "never answered" in text


async def test_a_defect_shows_no_internals(monkeypatch):
    async with collected(full()) as collector, opened_console(collector) as get:
        monkeypatch.setattr("pocket_console.server.fleet_view", lambda *_: 1 / 0)
        status, text, headers = await get("/fleet")
        assert (status, text) == (500, "the console failed to make this page: see its log\n")
        assert "Content-Security-Policy" in headers


async def test_assets_have_addresses_that_change_with_their_content():
    async with collected(full()) as collector, opened_console(collector) as get:
        status, text, headers = await get(asset_url("console.css"))
        assert status == 200
        assert "immutable" in headers["Cache-Control"]
        assert hashlib.sha256(text.encode()).hexdigest().startswith(asset_url("console.css").partition("?v=")[2])


@pytest.mark.parametrize("folder", VENDORS, ids=["console", "tests"])
def test_third_party_files_are_those_of_their_packages_with_their_licences(folder):
    rows = json.loads((folder / "vendor.json").read_text())
    for row in rows:
        assert hashlib.sha256((folder / "vendor" / row["file"]).read_bytes()).hexdigest() == row["sha256"], row["file"]
        assert re.fullmatch(r"\d+\.\d+\.\d+", row["version"])
        assert row["integrity"].startswith("sha512-")
        assert (folder / "vendor" / row["licence_file"]).read_text().strip()
    named = {row["file"] for row in rows} | {row["licence_file"] for row in rows}
    assert {path.name for path in (folder / "vendor").iterdir()} == named


def test_all_vendored_files_are_served_and_own_files_load_nothing_from_elsewhere():
    assert {row["file"] for row in vendored()} < set(files())
    for name in ("console.js", "console.css", "mark.svg"):
        text = files()[name].decode().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|@import|url\(", text)


@pytest.mark.parametrize("template", ["javascript:alert(1)", "", "data:text/html,x", "//evil", "ftp://x"])
def test_only_web_addresses_become_links(template):
    assert _link(template, height=1) == ""


def test_values_cannot_leave_their_place_in_a_link():
    assert _link("https://x/{hash}", hash="../a?b=c") == "https://x/..%2Fa%3Fb%3Dc"
    assert _with_query({"show": "open", "page": "3"}, page=1) == "?show=open"
    assert _with_query({}, page=1) == "?"


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (number(1234567), "1,234,567"), (number(None), "–"), (number(1.25), "1.2"), (number(2.0), "2"),
        (amount(999_999), "999,999 upokt"), (amount(1_234_567), "1.235 POKT"), (amount(None), "–"),
        (duration(59), "59 s"), (duration(3599), "59 min"), (duration(3700), "1 h 1 min"),
        (duration(90_000), "1 d 1 h"),
        (milliseconds(0.0123), "12.3 ms"), (milliseconds(1.5), "1,500 ms"), (size(1023), "1,023 B"),
        (size(1536), "1.5 KiB"), (percent(0.014), "1.4 %"), (percent(0.5), "50 %"), (percent(0), "0 %"),
        (rate(3), "3.0"), (short("0123456789abcdef", 4, 2), "0123…ef"), (short("0123456789", 4, 0), "0123…"),
        (short("short"), "short"),
    ],
)  # fmt: skip
def test_values_are_written_as_people_read_them(shown, text):
    assert shown == text
