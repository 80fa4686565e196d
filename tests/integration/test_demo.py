"""The product as its user runs it: every part a process of its own."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.processes, pytest.mark.redis, pytest.mark.timeout(170)]


@pytest.fixture
def folder(tmp_path):
    """Where a demo makes its own: other demos run at the same time."""
    made = tmp_path / "tmp"
    made.mkdir()
    return made


@pytest.fixture
def demo(folder):
    def run(*arguments, **environment):
        command = [sys.executable, "-m", "relayctl.main", "demo", "--sessions", "1", *arguments]
        environment = {**os.environ, "TMPDIR": str(folder), **environment}
        return subprocess.run(command, capture_output=True, text=True, timeout=400, env=environment, check=False)

    return run


SAMPLES = Path(__file__).resolve().parents[2] / "manifests/samples/trial"
FAULTS = Path(__file__).resolve().parents[1] / "support/faults"


@pytest.mark.long
def test_a_wrong_gateway_signature_makes_the_demo_fail(demo):
    run = demo("--corrupt", "gateway-signature")
    assert run.returncode == 1
    assert "no relay was acknowledged" in run.stdout


@pytest.mark.long
def test_a_wrong_root_and_a_wrong_proof_are_refused_by_the_localnet_fail_the_demo_and_cost_no_other(demo, tmp_path):
    # Every claim must be proven here: a wrong root that is not asked for a proof is paid, as on the real chain.
    samples = tmp_path / "samples"
    shutil.copytree(SAMPLES, samples)
    genesis = yaml.safe_load((samples / "genesis.yaml").read_text())
    genesis["proof_params"]["proof_request_probability"] = 1.0
    (samples / "genesis.yaml").write_text(yaml.safe_dump(genesis))
    root, proof, _ = (row["operator"] for row in genesis["suppliers"])
    run = demo("--samples", str(samples), PYTHONPATH=str(FAULTS), WRONG_ROOT=root, WRONG_PROOF=proof)
    assert run.returncode == 1, run.stdout + run.stderr
    failed = re.findall(r"FAILED: session \w+ of (\w+): ([\w ()]+),", run.stdout)
    assert set(failed) == {(root, "expired (PROOF_INVALID)"), (proof, "expired (PROOF_INVALID)")}, run.stdout


@pytest.mark.long
def test_chaos_with_a_redis_that_comes_back_empty_loses_no_acknowledged_relay(demo):
    run = demo("--chaos", "11", "--lose-redis")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "killed" in run.stdout


@pytest.fixture
def interruptible():
    """Enable interrupts in this process and its children.

    A shell starts background processes with interrupts ignored, and their children inherit it.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.long
def test_an_interrupt_ends_every_process_and_removes_every_file(interruptible, folder):
    child = subprocess.Popen(
        [sys.executable, "-m", "relayctl.main", "demo"],
        stdout=subprocess.PIPE, text=True, start_new_session=True, env={**os.environ, "TMPDIR": str(folder)},
    )  # fmt: skip
    line = child.stdout.readline()
    assert "started in" in line
    assert len(list(folder.iterdir())) == 1
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=60)
    assert child.returncode == 130
    assert not list(folder.iterdir())
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(folder) not in running


@pytest.mark.parametrize(
    ("program", "content", "said"),
    [
        ("pocket_relayer", "{", "not JSON"),
        ("pocket_miner", "{}", "Field required"),
        ("pocket_relayer", None, "No such file"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_one_sentence_and_exit_78(tmp_path, program, content, said):
    file = tmp_path / "config.json"
    if content is not None:
        file.write_text(content)
    run = subprocess.run(
        [sys.executable, "-m", program, "--config", str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 78
    assert said in run.stderr
    assert "Traceback" not in run.stderr


def test_an_occupied_port_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [
            sys.executable,
            "-m",
            "pocket_localnet",
            "chain",
            "--genesis",
            str(SAMPLES / "genesis.yaml"),
            "--rpc-port",
            str(port),
        ]
        run = subprocess.run([*command, "--grpc-port", "0"], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 78
    assert str(port) in run.stderr
    assert "choose other ports" in run.stderr
