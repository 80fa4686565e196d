"""Run a relayer pod, or with `--worker N` one of its workers.

Usage: `python -m pocket_relayer --config FILE`.
"""

import argparse
import gc
import os
import sys
from pathlib import Path
from typing import NoReturn

import uvloop
from prometheus_client import values

from pocket.api.base import ManifestError
from pocket.api.workload import RelayerConfig, read_config
from pocket.runtime import logs
from pocket.runtime.program import run_program
from pocket_relayer.limits.memory_trimming import mmap_large_allocations


def _name_metrics_once() -> None:
    """Make prometheus_client read the process id once.

    A worker never forks, so its metrics need not ask the kernel for its process id at every increment.
    """
    pid = os.getpid()
    # prometheus_client has no annotations there.
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: pid)  # type: ignore[no-untyped-call]


def _collect_seldom() -> None:
    """Collect garbage rarely.

    Loaded modules live as long as the process, and relays leave few cycles. Frequent full collections would only stall
    relays.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def supervise(config: RelayerConfig, file: Path) -> NoReturn:
    """Replace this program by the supervisor.

    The supervisor then has not loaded what validated the configuration.
    """
    from pocket_relayer.process.supervisor import SupervisorSettings  # noqa: PLC0415 - no worker needs it

    settings = SupervisorSettings(
        file.absolute(), config.data_dir, config.workers, config.host, config.port, config.admin_host,
        config.admin_port, config.drain_seconds, config.hung_worker_seconds,
    )  # fmt: skip
    os.execv(sys.executable, [sys.executable, "-m", "pocket_relayer.process", settings.encode()])  # noqa: S606 - it becomes the supervisor


def main() -> int:
    """Run the relayer and return its exit code.

    Returns 0 after a clean stop and 78 for a configuration that cannot be used.
    """
    parser = argparse.ArgumentParser(prog="relayer", description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--worker", type=int)
    parser.add_argument("--report-fd", type=int, help="the pipe by which a worker reports to its supervisor")
    parser.add_argument("--kept-config", type=Path, help="where workers keep the last valid configuration of services")
    options = parser.parse_args()
    component = "relayer" if options.worker is None else f"relayer-worker-{options.worker}"
    logs.configure(component, os.environ.get("LOG_LEVEL", "INFO"))
    try:
        config = read_config(RelayerConfig, options.config)
    except ManifestError as error:
        sys.stderr.write(f"relayer: {error}\n")
        return os.EX_CONFIG
    if options.worker is None:
        supervise(config, options.config)
    _name_metrics_once()
    from pocket_relayer.process.reports import ReportWriter  # noqa: PLC0415 - the environment decides where metrics are kept first
    from pocket_relayer.process.worker import Worker  # noqa: PLC0415 - as above

    mmap_large_allocations()
    _collect_seldom()
    worker = Worker(config, options.worker, ReportWriter(options.report_fd), kept_config=options.kept_config)
    return run_program("relayer", worker.run(), uvloop.run)


if __name__ == "__main__":
    sys.exit(main())
