"""The simulated machine is held to a real one: a volume without space, and locks of files."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import full_volume
import pytest
from simulated.loop import PROCESS, Process
from simulated.machine import Machine

HERE = Path(__file__).parent
VOLUME = 'mount -t tmpfs -o size=1m none "$1" && exec "$2" -m full_volume "$1"'


def on_a_real_volume(folder):
    """In a mount namespace of its own, which a user may make where the kernel lets users have namespaces."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", VOLUME, "sh", str(folder), sys.executable]
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.processes
@pytest.mark.skipif(not shutil.which("unshare"), reason="no unshare: no small volume can be made")
def test_a_full_volume_answers_as_a_real_one_does(tmp_path):
    real, simulated = tmp_path / "real", tmp_path / "simulated"
    real.mkdir()
    simulated.mkdir()
    done = on_a_real_volume(real)
    if "Operation not permitted" in done.stderr:
        pytest.skip("this kernel lets users make no namespaces")
    assert done.returncode == 0, done.stderr
    full = False

    def set_full(now):
        nonlocal full
        full = now

    with Machine(lambda _: full).installed():
        ours = full_volume.answers(simulated, lambda: set_full(True), lambda: set_full(False))
    assert ours == json.loads(done.stdout)
    assert any("has space: ok False" in row for row in ours)


def test_the_lock_of_a_process_ends_with_it(tmp_path):
    first, second, machine = Process("first"), Process("second"), Machine(lambda _: False)
    flags = fcntl.LOCK_EX | fcntl.LOCK_NB

    def lock(process, file):
        token = PROCESS.set(process)
        try:
            fcntl.flock(file, flags)
        finally:
            PROCESS.reset(token)

    with machine.installed(), (tmp_path / "lock").open("ab") as one, (tmp_path / "lock").open("ab") as other:
        lock(first, one)
        with pytest.raises(BlockingIOError):
            lock(second, other)
        first.dead = True
        lock(second, other)
