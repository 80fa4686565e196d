"""A demo with its console, what the chain paid in it, and a browser that watches."""

import asyncio
import concurrent.futures
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from playwright.sync_api import Browser, Page

from pocket.chain.comet import CometClient
from pocket.chain.failover import NodeAddress
from pocket.chain.settlement_event import ClaimEnd, claim_end

ROOT = Path(__file__).resolve().parents[2]
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
    miners: list[str] = field(default_factory=list)
    ends: list[ClaimEnd] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

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


def pictures(browser: Browser, demo: Demo) -> None:
    """Take the pictures of the documentation while sessions are open."""
    shots = [
        ("console-overview", "/", "light", 1360), ("console-overview-dark", "/", "dark", 1360),
        ("console-sessions", "/sessions", "light", 1360), ("console-suppliers", "/suppliers", "light", 1360),
        ("console-services", "/services", "light", 1360), ("console-fleet", "/fleet", "light", 1360),
        ("console-phone", "/", "light", 390),
    ]  # fmt: skip
    folder = IMAGES if os.environ.get("SCREENSHOTS") else Path(os.environ.get("TMPDIR", "/tmp"))
    for name, path, scheme, width in shots:
        context = browser.new_context(viewport={"width": width, "height": 860}, color_scheme=scheme)
        page = context.new_page()
        watched(page, demo.errors)
        page.goto(demo.console + path)
        page.wait_for_selector("#connection[data-state=on]")
        page.screenshot(path=folder / f"{name}.png", full_page=width > 1000, animations="disabled")
        if name == "console-sessions":
            page.locator("table.sessions tbody a").first.click()
            page.wait_for_selector("h1:has-text('Session')")
            page.screenshot(path=folder / "console-session.png", full_page=True, animations="disabled")
        context.close()
