"""Every panel of the dashboards shows data of a demo, as a real Prometheus reads it from the real programs."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import pytest
import yaml

from pocket_operator.resources.dashboards import dashboard
from relayctl.local_ports import free_port

pytestmark = [pytest.mark.processes, pytest.mark.redis, pytest.mark.long, pytest.mark.timeout(170)]

NEEDS_EVENTS = {
    "Refused, by reason": "a rejected relay",
    "Over undeclared transports": "a relay over a transport that the stake does not declare",
    "Probes": "a simulated relay",
    "Signatures for miners, p99 by result": "a remote signer",
    "Signatures for relayers, p99 by result": "a remote signer",
    "WebSockets": "a WebSocket",
    "Logs appended again": "a restarted or emptied Redis",
    "Relays stored": "a standby",
    "Refused entries of streams": "an invalid entry of a stream",
    "Lost, by reason": "an application that does not pay",
    "Failed steps": "a step of a miner that fails",
    "Retries at backends": "a backend that fails",
    "Endpoints that are not asked": "a backend that fails",
    "Active checks": "a declared health check",
    "Connections that were closed": "a client that misbehaves",
    "Chain queries of relayers, p99 by result": "a record that no miner has queried before",
    "Chain nodes, by health": "several chain nodes",
    "Chain nodes, blocks behind": "several chain nodes",
    "Chain nodes as relayers see them, not good": "several chain nodes",
    "Mined, and below the difficulty": "a difficulty",
}
"""Panels with series that exist only after something that a demo does not do."""


@pytest.fixture
def prometheus(tmp_path):
    program = shutil.which("prometheus")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("prometheus is not installed (Debian: prometheus)")
        pytest.skip("prometheus is not installed (Debian: prometheus)")
    children = []

    def start(targets):
        port = free_port()
        jobs = [
            {
                "job_name": name, "scrape_interval": "1s", "static_configs": [
                    {"targets": [target], "labels": {
                        "namespace": "pocket-trial", "pocket_network_relayminer": "trial", "pod": name,
                    }}
                ],
            }
            for name, target in targets.items()
        ]  # fmt: skip
        config = tmp_path / "prometheus.yaml"
        config.write_text(yaml.safe_dump({"scrape_configs": jobs}))
        children.append(
            subprocess.Popen(
                [program, f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}",
                 f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"],
            )
        )  # fmt: skip
        return f"http://127.0.0.1:{port}"

    yield start
    for child in children:
        child.terminate()
        child.wait(20)


@pytest.fixture
def demo(tmp_path):
    folder = tmp_path / "tmp"
    folder.mkdir()
    child = subprocess.Popen(
        [sys.executable, "-m", "relayctl.main", "demo", "--sessions", "2", "--keep"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env={**os.environ, "TMPDIR": str(folder)},
    )  # fmt: skip
    yield child, folder
    os.killpg(child.pid, signal.SIGTERM)
    child.communicate(timeout=30)  # closes the pipe too


def read_until(child, text):
    for line in child.stdout:
        if text in line:
            return line
    raise AssertionError(f"the demo ended without {text!r}")


def query(base, expression):
    url = f"{base}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        rows = json.load(answer)["data"]["result"]
    return [float(row["value"][1]) for row in rows]


def test_every_panel_shows_data_of_a_demo(prometheus, demo):
    child, folder = demo
    read_until(child, "started in")
    (work,) = folder.iterdir()
    targets = {
        name: f"127.0.0.1:{json.loads((work / f'{name}.json').read_text())['adminPort']}"
        for name in ("relayer", "miner")
    }
    base = prometheus(targets)
    read_until(child, "Every acknowledged relay was claimed")
    panels = [panel for panel in dashboard("trial", "pocket-trial")["panels"] if panel["type"] != "row"]
    deadline, empty = time.monotonic() + 15, {}
    while time.monotonic() < deadline:  # the last scrape is a second away
        empty = {
            panel["title"]: target["expr"]
            for panel in panels for target in panel["targets"]
            if all(math.isnan(value) for value in query(base, target["expr"]))
        }  # fmt: skip
        if not empty.keys() - NEEDS_EVENTS.keys():
            break
    assert empty.keys() - NEEDS_EVENTS.keys() == set(), empty
    assert NEEDS_EVENTS.keys() <= {panel["title"] for panel in panels}
