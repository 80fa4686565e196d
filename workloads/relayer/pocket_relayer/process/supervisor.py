"""Start, monitor, restart and drain a pod's workers, and merge their metrics."""

import asyncio
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, generate_latest, multiprocess
from structlog.typing import FilteringBoundLogger

from pocket.api.problems import Problem, ProblemCode
from pocket.errors import ConfigurationError
from pocket.runtime.backoff import Backoff
from pocket.runtime.program import require_writable
from pocket_relayer.process.liveness import POLL_SECONDS, LivenessDeadlines, SilenceTimer, WorkerState, assess
from pocket_relayer.process.plain_http import PlainResponse, PlainServer
from pocket_relayer.process.reports import ReportReader, WorkerReport, not_ready, silent_problem, summary

_LOG: FilteringBoundLogger = structlog.get_logger()
_DRAIN_MARGIN_SECONDS = 10.0
_END_SECONDS = 5.0
_STEADY_SECONDS = 60.0
_REST_SECONDS = 0.05
_RESTARTS = Backoff()
_SHOWN = (WorkerState.SILENT, WorkerState.HUNG)


def require_free_port(host: str, port: int) -> None:
    """Raise ConfigurationError if the port is taken.

    Workers share the port with SO_REUSEPORT, which would also join another program's port.
    """
    probe = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
    except OSError as error:
        raise ConfigurationError(
            f"relayer: port {port} on {host} is taken: {error.strerror}. Stop the other process or set "
            "spec.relayer.port."
        ) from error
    finally:
        probe.close()


def _metrics_folder(data_dir: Path) -> Path:
    """Return the folder of the workers' metrics, one for each data folder.

    prometheus_client maps its files into memory: on a full volume a write to them kills the process. Logs of relays may
    fill the data folder.
    """
    instance = hashlib.blake2b(str(data_dir.resolve()).encode(), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()) / f"pocket-relayer-metrics-{os.getuid()}-{instance}"


@dataclass(frozen=True, slots=True)
class SupervisorSettings:
    """The configuration that a supervisor needs, and the file with all of it."""

    config_file: Path
    data_dir: Path
    workers: int
    host: str
    port: int
    admin_host: str
    admin_port: int
    drain_seconds: float
    hung_worker_seconds: float

    def encode(self) -> str:
        """Return the settings as JSON."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def decode(cls, text: str) -> "SupervisorSettings":
        """Return the settings of a text of `encode`."""
        row = json.loads(text)
        return cls(**{**row, "config_file": Path(row["config_file"]), "data_dir": Path(row["data_dir"])})


@dataclass(slots=True)
class SupervisedWorker:
    """A worker's process and its last report."""

    number: int
    process: asyncio.subprocess.Process
    reports: ReportReader
    silence: SilenceTimer
    state: WorkerState = WorkerState.STARTING

    def receive(self) -> WorkerReport | None:
        """Take what has come, which ends the silence. Returns the last report."""
        if self.reports.receive():
            self.silence.reset()
        return self.reports.report

    @property
    def has_served(self) -> bool:
        """Return True if the worker has listened for relays."""
        report = self.receive()
        return report is not None and not report.starting


class Supervisor:
    """Runs `workers` processes until SIGTERM."""

    def __init__(
        self,
        config: SupervisorSettings,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._config = config
        self._sleep = sleep
        self._stop = asyncio.Event()
        self._metrics = _metrics_folder(config.data_dir)
        self._deadlines = LivenessDeadlines.of(config.hung_worker_seconds)
        self._workers: dict[int, SupervisedWorker] = {}
        self._restarts = 0
        self._served = False
        """True once a worker has served relays."""

    async def run(self) -> None:
        """Supervise until the stop signal, then drain every worker."""
        config = self._config
        if config.port:
            require_free_port(config.host, config.port)
        require_writable("relayer", config.data_dir)
        shutil.rmtree(self._metrics, ignore_errors=True)
        self._metrics.mkdir(mode=0o700)
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._stop.set)
        admin = await self._serve_admin()
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(config.workers):
                    group.create_task(self._supervise_worker(number))
        finally:
            await admin.close()
            shutil.rmtree(self._metrics, ignore_errors=True)

    async def _supervise_worker(self, number: int) -> None:
        """Keep one worker running until the stop.

        Raises ConfigurationError if the worker rejects its configuration before any worker has served. Afterwards it is
        restarted like any other: the others serve with what they have read before.
        """
        rng, loop = random.Random(number), asyncio.get_running_loop()  # noqa: S311 - jitter
        failures = 0
        while not self._stop.is_set():
            began = loop.time()
            async with self._running_worker(number) as worker:
                await self._wait_for_end(worker)
            # prometheus_client has no annotations there.
            multiprocess.mark_process_dead(worker.process.pid, str(self._metrics))  # type: ignore[no-untyped-call]
            if self._stop.is_set():
                return
            self._served = self._served or any(one.has_served for one in (worker, *self._workers.values()))
            if worker.process.returncode == os.EX_CONFIG and not self._served:
                raise ConfigurationError("relayer: a worker refused its configuration; its message is above")
            failures = 1 if loop.time() - began > _STEADY_SECONDS else failures + 1
            self._restarts += 1
            _LOG.error("worker ended, restarting it", worker=number, exit_code=worker.process.returncode)
            await self._sleep(_RESTARTS.pause(failures, rng))

    @contextlib.asynccontextmanager
    async def _running_worker(self, number: int) -> AsyncIterator[SupervisedWorker]:
        """Start a worker and receive its reports.

        A worker that still runs on exit is ended.
        """
        loop = asyncio.get_running_loop()
        read_end, write_end = os.pipe()
        reports = ReportReader(read_end)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "pocket_relayer", "--config", str(self._config.config_file),
                "--worker", str(number), "--report-fd", str(write_end),
                "--kept-config", str(self._metrics / "services.kept"),
                env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(self._metrics)}, pass_fds=(write_end,),
            )  # fmt: skip
        except BaseException:
            reports.close()
            raise
        finally:
            os.close(write_end)
        worker = self._workers[number] = SupervisedWorker(number, process, reports, SilenceTimer(loop.time()))
        try:
            yield worker
        finally:
            await self._end(worker)
            del self._workers[number]
            reports.close()

    async def _end(self, worker: SupervisedWorker) -> None:
        """End a worker that still runs, because another one refused its configuration."""
        self._signal(worker, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await worker.process.wait()
        self._signal(worker, signal.SIGKILL)
        await worker.process.wait()

    async def _wait_for_end(self, worker: SupervisedWorker) -> None:
        """Wait until a worker has ended: on its own, killed or drained."""
        stopping = asyncio.ensure_future(self._stop.wait())
        ended = asyncio.ensure_future(worker.process.wait())
        hung = asyncio.ensure_future(self._wait_until_hung(worker))
        try:
            await asyncio.wait({stopping, ended, hung}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done() and not stopping.done():
                _LOG.error(
                    "worker does not respond, killing it",
                    worker=worker.number,
                    pid=worker.process.pid,
                    state=worker.state,
                )
                self._signal(worker, signal.SIGKILL)
            elif not ended.done():
                self._signal(worker, signal.SIGTERM)
                await asyncio.wait({ended}, timeout=self._config.drain_seconds + _DRAIN_MARGIN_SECONDS)
                self._signal(worker, signal.SIGKILL)
            await ended
        finally:
            for task in (stopping, hung):
                task.cancel()

    async def _wait_until_hung(self, worker: SupervisedWorker) -> None:
        """Poll a worker until it has to be killed."""
        loop = asyncio.get_running_loop()
        while worker.state is not WorkerState.HUNG:
            await self._sleep(_REST_SECONDS if worker.reports.is_in_a_line else POLL_SECONDS)
            worker.receive()
            before = worker.state
            silent = worker.silence.poll(loop.time())
            worker.state = assess(silent, self._deadlines, reported=worker.silence.reported)
            if worker.state is WorkerState.SILENT and before is not WorkerState.SILENT:
                _LOG.warning("worker is silent", worker=worker.number, pid=worker.process.pid)

    def _signal(self, worker: SupervisedWorker, number: signal.Signals) -> None:
        if worker.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                worker.process.send_signal(number)

    # The admin server.

    def _reports(self) -> list[WorkerReport]:
        reports = (worker.receive() for _, worker in sorted(self._workers.items()))
        return [report for report in reports if report is not None]

    def _silent(self) -> dict[int, Problem]:
        seconds = self._deadlines.hung
        return {
            worker.number: silent_problem(worker.number, worker.process.pid, seconds)
            for worker in self._workers.values() if worker.state in _SHOWN
        }  # fmt: skip

    def _problems(self) -> list[Problem]:
        """Return why this pod should get no relays."""
        if self._stop.is_set():
            return [Problem(code=ProblemCode.DRAINING, message="draining")]
        return not_ready(self._reports(), self._config.workers, self._silent())

    async def _serve_admin(self) -> PlainServer:
        def show_metrics() -> PlainResponse:
            registry = CollectorRegistry()
            # prometheus_client has no annotations there.
            multiprocess.MultiProcessCollector(registry, path=str(self._metrics))  # type: ignore[no-untyped-call]
            return PlainResponse(generate_latest(registry), "text/plain; charset=utf-8")

        def show_health() -> PlainResponse:
            # The health of this process. It kills a hanging worker, which is no reason to kill the others.
            hung = sorted(self._silent())
            status = "degraded" if hung else "ok"
            processes = {str(number): worker.process.pid for number, worker in sorted(self._workers.items())}
            return PlainResponse.of_json(
                {"status": status, "workers": len(self._workers), "processes": processes, "hung": hung,
                 "restarts": self._restarts}
            )  # fmt: skip

        def show_ready() -> PlainResponse:
            problems = self._problems()
            rows = [problem.model_dump() for problem in problems]
            body = {"ready": not problems, "problem": str(problems[0]) if problems else "", "problems": rows}
            return PlainResponse.of_json(body, HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK)

        def show_report() -> PlainResponse:
            report = summary(self._reports(), self._config.workers, self._silent())
            return PlainResponse.of_json({**report, "restarts": self._restarts})

        server = PlainServer(
            {
                "/metrics": show_metrics,
                "/health": show_health,
                "/ready": show_ready,
                "/status": show_report,
                "/report": show_report,
            }
        )
        try:
            await server.start(self._config.admin_host, self._config.admin_port)
        except OSError as error:
            raise ConfigurationError(
                f"relayer: admin port {self._config.admin_port} is taken: {error.strerror}. Stop the other process."
            ) from error
        return server
