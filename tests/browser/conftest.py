"""A demo under chaos with its console, and a browser that watches it from the first block to the last payment."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from console_demo import (
    WAIT_SECONDS,
    Demo,
    apart,
    awaited,
    ends_of,
    pictures,
    send,
    shown_relays,
    terminal_picture,
    url_of,
    watched,
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Return a headless Chromium, or skip."""
    program = shutil.which(os.environ.get("CHROMIUM", "chromium"))
    if program is None:
        pytest.skip("no Chromium: install Debian's package chromium, or set CHROMIUM to the path of one")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture(scope="module")
def demo(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """Run the demo under chaos to its end and keep it running. The overview is open in the browser all the time."""
    folder = tmp_path_factory.mktemp("demo")
    command = [
        sys.executable,
        "-m",
        "relayctl.main",
        "demo",
        "--keep",
        "--chaos",
        "7",
        "--miners",
        "2",
        "--sessions",
        "4",
    ]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "TMPDIR": str(folder)}
    )
    made = Demo()
    reader = threading.Thread(target=lambda: made.output.extend(iter(child.stdout.readline, "")), daemon=True)
    reader.start()
    try:
        made.console = awaited(made, child, r"^console: (http\S+)/$")
        context = browser.new_context(viewport={"width": 1360, "height": 860})
        page = context.new_page()
        watched(page, made.errors)
        page.goto(made.console)
        awaited(made, child, r"^block: (?:2\d|[3-9]\d) ", page)
        pictures(browser, made, traffic=True)
        awaited(made, child, r"settled: [1-9]\d* of", page)
        pictures(browser, made, traffic=False)
        awaited(made, child, r"^Every acknowledged relay was claimed, proven where required, and paid", page)
        awaited(made, child, r"Stop it with Ctrl-C", page)
        text = "".join(made.output)
        made.rpc, made.relayer = url_of(text, "rpc"), url_of(text, "relayer")
        made.relayer_admin = url_of(text, "relayer-admin")
        made.grpc = re.search(r"gRPC\s+(grpc://\S+)", text)[1]
        made.miners = dict(re.findall(r"(miner(?:-\d)?)-admin\s+(http\S+)", text))
        made.session, made.served = apart(lambda: send(made, 60))
        made.shown = shown_relays(page, made)
        terminal_picture(browser, made)
        deadline = time.monotonic() + WAIT_SECONDS
        while sum(end.session_id == made.session for end in made.ends) < len(made.served):
            assert time.monotonic() < deadline, "the relays that were sent after the chaos did not settle"
            page.wait_for_timeout(1000)
            made.ends = apart(lambda: ends_of(made.rpc, made.grpc))
        page.wait_for_timeout(3000)  # a poll of the console after the last outcome
        context.close()
        yield made
    finally:
        child.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(30)
        child.kill()
        child.wait()
        reader.join(10)
        child.stdout.close()
