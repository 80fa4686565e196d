"""The parent of a relayer pod's workers: starts, restarts, drains them and merges their metrics."""

import asyncio
import contextlib
import logging
import os
import random
import shutil
import signal
import socket
import sys
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest, multiprocess

from pocket_api.workload import RelayerConfig
from relayer.reports import read_reports, summary
from shannon.errors import ConfigurationError
from shannon.program import require_writable

_LOG = logging.getLogger("relayer.supervisor")


def require_free_port(host: str, port: int) -> None:
    """Workers share the port with SO_REUSEPORT, which would also join a stranger's; raises ConfigurationError."""
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


class Supervisor:
    """Runs `workers` processes until SIGTERM."""

    def __init__(self, config: RelayerConfig, config_path: Path) -> None:
        self._config = config
        self._config_path = config_path
        self._stop = asyncio.Event()
        self._metrics = config.data_dir / "metrics"
        self._alive: dict[int, int] = {}

    async def run(self) -> None:
        """Supervises until told to stop; then every worker drains."""
        config = self._config
        if config.port:
            require_free_port(config.host, config.port)
        require_writable("relayer", config.data_dir)
        shutil.rmtree(self._metrics, ignore_errors=True)
        self._metrics.mkdir(parents=True)
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._stop.set)
        admin = await self._serve_admin()
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(config.workers):
                    group.create_task(self._keep(number))
        finally:
            await admin.cleanup()

    async def _keep(self, number: int) -> None:
        chance = random.Random(number)  # noqa: S311 - jitter
        failures = 0
        while not self._stop.is_set():
            environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(self._metrics)}
            worker = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "relayer", "--config", str(self._config_path), "--worker", str(number),
                env=environment,
            )  # fmt: skip
            self._alive[number] = worker.pid
            stopping = asyncio.ensure_future(self._stop.wait())
            ended = asyncio.ensure_future(worker.wait())
            await asyncio.wait({stopping, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                with contextlib.suppress(ProcessLookupError):
                    worker.terminate()
                try:
                    await asyncio.wait_for(ended, self._config.drain_seconds + 10)
                except TimeoutError:
                    worker.kill()
                    await worker.wait()
            stopping.cancel()
            del self._alive[number]
            # prometheus_client has no annotations there.
            multiprocess.mark_process_dead(worker.pid, str(self._metrics))  # type: ignore[no-untyped-call]
            if self._stop.is_set():
                return
            if worker.returncode == os.EX_CONFIG:
                raise ConfigurationError("relayer: a worker refused its configuration; its message is above")
            failures += 1
            _LOG.error("worker %d ended with %s, starting it again", number, worker.returncode)
            await asyncio.sleep(min(5.0, 0.1 * 2 ** min(failures, 6)) * chance.uniform(0.5, 1.0))

    async def _serve_admin(self) -> web.AppRunner:
        async def show_metrics(_: web.Request) -> web.Response:
            registry = CollectorRegistry()
            # prometheus_client has no annotations there.
            multiprocess.MultiProcessCollector(registry, path=str(self._metrics))  # type: ignore[no-untyped-call]
            return web.Response(body=generate_latest(registry), content_type="text/plain", charset="utf-8")

        async def show_health(_: web.Request) -> web.Response:
            return web.json_response({"status": "ok", "workers": len(self._alive)})

        async def show_status(_: web.Request) -> web.Response:
            reports = read_reports(self._config.data_dir, self._alive)
            return web.json_response(summary(reports, self._config.workers))

        app = web.Application()
        app.router.add_get("/metrics", show_metrics)
        app.router.add_get("/health", show_health)
        app.router.add_get("/status", show_status)
        app.router.add_get("/report", show_status)
        runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._config.admin_host, self._config.admin_port).start()
        except OSError as error:
            await runner.cleanup()
            raise ConfigurationError(
                f"relayer: admin port {self._config.admin_port} is taken: {error.strerror}"
            ) from error
        return runner
