"""A configuration that becomes invalid while a relayer serves: what was valid stays, and no pod ends."""

import asyncio
import sys
from pathlib import Path

import pytest

from hostile_clients import until
from pocket.api.relayminer import RelayMiner
from pocket.api.workload import ReloadableConfig
from pocket.errors import ConfigurationError
from pocket_operator.resources.workload_config import RuntimePaths, relayer_config
from pocket_relayer.process.reloading import ReloadedConfig
from pocket_relayer.process.reports import WorkerReport, encode_report
from pocket_relayer.process.supervisor import Supervisor, SupervisorSettings
from resources import relay_miner

VALID = ReloadableConfig(log_level="debug").model_dump_json(by_alias=True)


def test_a_worker_that_starts_while_the_file_is_invalid_uses_what_another_one_has_kept(tmp_path, captured_logs):
    file, kept = tmp_path / "services.json", tmp_path / "kept"
    file.write_text(VALID)
    first = ReloadedConfig(file, kept)
    file.write_text("{")
    assert not first.reload()
    second = ReloadedConfig(file, kept)
    assert second.current == first.current
    assert second.current.log_level == "debug"
    assert not second.reload()
    assert [row["event"] for row in captured_logs].count(
        "config reload failed, keeping the previous configuration"
    ) == 2
    file.write_text(VALID.replace("debug", "error"))
    assert (first.reload(), second.reload()) == (True, True)
    file.write_text("{")
    assert ReloadedConfig(file, kept).current.log_level == "error", "the latest valid one"


@pytest.mark.parametrize("kept", [None, "missing", "broken"])
def test_a_worker_without_any_valid_configuration_does_not_start(tmp_path, kept):
    file = tmp_path / "services.json"
    file.write_text("{")
    (tmp_path / "broken").write_text("[")
    with pytest.raises(ConfigurationError):
        ReloadedConfig(file, kept and tmp_path / kept)


def test_a_folder_that_takes_no_file_costs_only_what_would_be_kept(tmp_path):
    file = tmp_path / "services.json"
    file.write_text(VALID)
    assert ReloadedConfig(file, tmp_path / "none/kept").current.log_level == "debug"


WORKER = """#!{python}
import pathlib, sys, time
folder, arguments = pathlib.Path({folder!r}), sys.argv
number, pipe = arguments[arguments.index("--worker") + 1], int(arguments[arguments.index("--report-fd") + 1])
run = len(list(folder.glob(f"run-{{number}}-*")))
(folder / f"run-{{number}}-{{run}}").touch()
if "serves" in {behaviour!r}[number][min(run, 2)]:
    open(pipe, "wb").write((folder / f"report-{{number}}").read_bytes())
while "serves" in {behaviour!r}[number][min(run, 2)] and not (folder / f"end-{{number}}-{{run}}").exists():
    time.sleep(0.02)
sys.exit(78)
"""


async def supervised(tmp_path, monkeypatch, behaviour):
    """Return a supervisor of stand-ins for workers that serve or refuse their configuration, run by run."""
    paths = RuntimePaths(redis_url="redis://127.0.0.1:1/0", keys_dir=tmp_path, data_dir=tmp_path / "data")
    config = relayer_config(RelayMiner.model_validate(relay_miner("ns")), paths)
    script = tmp_path / "worker"
    script.write_text(WORKER.format(python=sys.executable, folder=str(tmp_path), behaviour=behaviour))
    script.chmod(0o755)
    for number in range(2):
        row = WorkerReport(number, 1, "k", 5, 0)
        (tmp_path / f"report-{number}").write_bytes(encode_report(row))
    monkeypatch.setattr(sys, "executable", str(script))
    settings = SupervisorSettings(
        Path("relayer.json"), config.data_dir, workers=2, host="127.0.0.1", port=0, admin_host="127.0.0.1",
        admin_port=0, drain_seconds=config.drain_seconds, hung_worker_seconds=config.hung_worker_seconds,
    )  # fmt: skip

    async def pause(seconds):
        await asyncio.sleep(0.01)

    return Supervisor(settings, sleep=pause)


@pytest.mark.processes
async def test_a_restarted_worker_that_refuses_its_configuration_does_not_end_the_others(tmp_path, monkeypatch):
    behaviour = {"0": ["serves"] * 3, "1": ["serves", "refuses", "serves"]}
    supervisor = await supervised(tmp_path, monkeypatch, behaviour)
    running = asyncio.create_task(supervisor.run())
    await until(lambda: len(supervisor._reports()) == 2)
    (tmp_path / "end-1-0").touch()
    await until(lambda: (tmp_path / "run-1-2").exists() or running.done())
    assert not running.done(), running.exception()
    assert not (tmp_path / "run-0-1").exists(), "the other one was left alone"
    supervisor._stop.set()
    await running


@pytest.mark.processes
async def test_a_pod_whose_workers_have_never_served_ends_with_the_error(tmp_path, monkeypatch):
    supervisor = await supervised(tmp_path, monkeypatch, {"0": ["refuses"] * 3, "1": ["refuses"] * 3})
    with pytest.raises(ExceptionGroup) as caught:
        await supervisor.run()
    assert caught.group_contains(ConfigurationError)
