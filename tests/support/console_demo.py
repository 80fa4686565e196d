"""A demo with its console, what the chain paid in it, and a browser that watches."""

import asyncio
import concurrent.futures
import io
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from playwright.sync_api import Browser, Page
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from pocket.chain.client import ChainClient
from pocket.chain.comet import CometClient
from pocket.chain.failover import NodeAddress
from pocket.chain.settlement_event import ClaimEnd, claim_end
from pocket.protocol.crypto.ecdsa import PrivateKey
from relayctl.gateway import Gateway, json_rpc_envelope

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "manifests/samples/trial"
IMAGES = ROOT / "docs/images"
AXE = ROOT / "tests/browser/vendor/axe.min.js"
WAIT_SECONDS = 240.0


@dataclass
class Demo:
    """A running demo: its addresses, and the claims' ends by the chain's own events."""

    output: list[str] = field(default_factory=list)
    console: str = ""
    rpc: str = ""
    grpc: str = ""
    relayer: str = ""
    relayer_admin: str = ""
    miners: dict[str, str] = field(default_factory=dict)
    ends: list[ClaimEnd] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    session: str = ""
    served: Counter[str] = field(default_factory=Counter)
    """The relays by supplier that were sent in `session`, after the chaos."""
    shown: Counter[str] = field(default_factory=Counter)
    """What the console showed of them while the session was open."""

    @property
    def settled(self) -> list[ClaimEnd]:
        return [end for end in self.ends if end.outcome == "settled"]


def apart(work: Callable[[], Any]) -> Any:
    """Run a coroutine while Playwright's own event loop is in this thread."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(work())).result(60)


async def ends_of(rpc: str, grpc: str) -> list[ClaimEnd]:
    """Return how every claim ended, from the events of all blocks."""
    async with aiohttp.ClientSession() as http:
        comet = CometClient([NodeAddress.parse(grpc, rpc)], http)
        found = []
        for height in range(1, (await comet.block()).height + 1):
            events = await comet.end_events(height, lambda event: True)
            found += [end for event in events if (end := claim_end(event)) is not None]
        return found


async def send(demo: Demo, count: int) -> tuple[str, Counter[str]]:
    """Send relays of `eth` through the demo's relayer. Returns the session and the acknowledged relays by supplier."""
    secret = yaml.safe_load((SAMPLES / "gateway.yaml").read_text())
    served = Counter[str]()
    async with aiohttp.ClientSession() as http, ChainClient([NodeAddress.parse(demo.grpc, demo.rpc)]) as chain:
        gateway = Gateway(chain, http, PrivateKey.from_hex(secret["key"]))
        signer = await gateway.signer(secret["applications"]["eth"], "eth")
        suppliers = sorted(signer.session.supplier_addresses)
        for number in range(count):
            body = b'{"jsonrpc":"2.0","id":%d,"method":"eth_chainId"}' % (1_000_000 + number)
            supplier = suppliers[number % len(suppliers)]
            request = signer.sign(supplier, json_rpc_envelope(demo.relayer + "/", body))
            await gateway.send(demo.relayer, request, 3, timeout_seconds=10)
            served[supplier] += 1
        return signer.session.header.session_id, served


def watched(page: Page, errors: list[str]) -> None:
    """Collect what a page complains about. That a killed console cannot be reached is not its fault."""
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: errors.append(str(error)))


def url_of(text: str, name: str) -> str:
    return re.search(rf"^\s+{name}\s+(http\S+)", text, re.MULTILINE)[1]


def awaited(demo: Demo, child: subprocess.Popen, pattern: str, page: Page | None = None) -> str:
    """Wait for a line of the demo, and let the page live meanwhile."""
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        found = re.search(pattern, "".join(demo.output), re.MULTILINE)
        if found:
            return found[1] if found.groups() else ""
        if child.poll() is not None:
            break
        if page is not None:
            page.wait_for_timeout(200)
        else:
            threading.Event().wait(0.2)
    raise AssertionError(f"the demo did not print {pattern}:\n" + "".join(demo.output))


def picture_folder() -> Path:
    """Return the folder for pictures: that of the documentation if they are to be renewed."""
    return IMAGES if os.environ.get("SCREENSHOTS") else Path(os.environ.get("TMPDIR", "/tmp"))


def terminal_picture(browser: Browser, demo: Demo) -> None:
    """Take the picture of `relayctl top`, as a terminal of 132 columns shows it."""
    options = [word for name, url in demo.miners.items() for word in ("--miner", f"{name}={url}")]
    command = [sys.executable, "-m", "relayctl.main", "top", "--once", *options, "--relayer", demo.relayer_admin]
    terminal = {**os.environ, "COLUMNS": "132", "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    done = subprocess.run(command, env=terminal, capture_output=True, text=True, timeout=60, check=True)
    assert "earned today" in done.stdout
    recorded = Console(file=io.StringIO(), width=132, record=True)
    recorded.print(Text.from_ansi(done.stdout))
    page = browser.new_page(viewport={"width": 1180, "height": 400})
    page.set_content(recorded.export_html(theme=MONOKAI, inline_styles=True))
    page.screenshot(path=picture_folder() / "terminal.png", full_page=True)
    page.close()


def pictures(browser: Browser, demo: Demo, *, traffic: bool) -> None:
    """Take the pictures of the documentation: of services while relays are sent, of the rest once some are paid."""
    shots = [
        ("console-overview", "/", "light", 1360), ("console-overview-dark", "/", "dark", 1360),
        ("console-sessions", "/sessions", "light", 1360), ("console-suppliers", "/suppliers", "light", 1360),
        ("console-services", "/services", "light", 1360), ("console-fleet", "/fleet", "light", 1360),
        ("console-phone", "/", "light", 390),
    ]  # fmt: skip
    if not traffic:
        await_earnings(browser, demo)
    for name, path, scheme, width in shots:
        if traffic != (name == "console-services"):
            continue
        context = browser.new_context(viewport={"width": width, "height": 860}, color_scheme=scheme)
        page = context.new_page()
        watched(page, demo.errors)
        page.goto(demo.console + path)
        page.wait_for_selector("#connection[data-state=on]")
        page.screenshot(path=picture_folder() / f"{name}.png", full_page=width > 1000, animations="disabled")
        if name == "console-sessions":
            page.locator("table.sessions tbody a").first.click()
            page.wait_for_selector("h1:has-text('Session')")
            page.screenshot(path=picture_folder() / "console-session.png", full_page=True, animations="disabled")
        context.close()


def await_earnings(browser: Browser, demo: Demo) -> None:
    """Wait until the overview shows earnings: the console reads the miners a moment later than the chain pays."""
    first = browser.new_page()
    first.goto(demo.console)
    first.wait_for_function("() => document.querySelector('#earned-today').textContent !== '0 upokt'", timeout=60_000)
    first.close()


def shown_relays(page: Page, demo: Demo) -> Counter[str]:
    """Return the relays that the console shows of the open session, once they are as many as were sent."""
    address = f"{demo.console}/sessions?show=open&session={demo.session}"
    found = Counter[str]()
    end = time.monotonic() + 20
    while found.total() < demo.served.total() and time.monotonic() < end:
        page.goto(address)
        found = Counter(
            {
                row.locator("td.wide a").get_attribute("title"): int(row.locator("td.num").first.inner_text())
                for row in page.locator("table.sessions tbody tr").all()
            }
        )
    return found
