"""What a relayer's worker has done before it serves."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pocket.api.relayminer import RelayMiner
from pocket_operator.resources.workload_config import RuntimePaths, relayer_config
from pocket_relayer.process.supervisor import _metrics_folder
from resources import relay_miner

STARTED = """
import gc, sys
from pocket.runtime import program

def end_here(name, main, runner):
    main.close()
    from pocket_relayer.process.worker import Worker
    print(any(row is Worker for row in gc.get_objects()))
    return 0

program.run_program = end_here
from pocket_relayer.__main__ import main
sys.exit(main())
"""


@pytest.mark.processes
def test_garbage_collections_never_look_at_what_a_worker_loaded(tmp_path):
    """A look at all of it takes tens of milliseconds, in which no relay is served."""
    runtime_paths = RuntimePaths(redis_url="redis://127.0.0.1:1/0", keys_dir=tmp_path, data_dir=tmp_path)
    config = relayer_config(RelayMiner.model_validate(relay_miner("ns")), runtime_paths)
    file = Path(tmp_path, "relayer.json")
    file.write_text(config.model_dump_json(by_alias=True))
    command = [sys.executable, "-c", STARTED, "--config", str(file), "--worker", "0"]
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("False\n", 0), done.stderr


def test_the_metrics_of_each_instance_are_outside_of_the_folder_that_logs_may_fill(tmp_path):
    folders = {_metrics_folder(tmp_path / name) for name in ("a", "b")}
    assert len(folders) == 2
    assert not any(folder.is_relative_to(tmp_path) for folder in folders)
    assert _metrics_folder(tmp_path / "a") in folders
