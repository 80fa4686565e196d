"""Child processes on this machine, and waiting for them."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.error import HTTPError
from urllib.request import urlopen

from pocket.errors import ConfigurationError


@dataclass(slots=True)
class Process:
    """A child process in its own process group."""

    name: str
    command: list[str]
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    child: subprocess.Popen[bytes] | None = None
    starts: int = 0

    def start(self) -> None:
        """Start the process, or restart it."""
        output: IO[bytes]
        with self.log.open("ab") as output:
            self.child = subprocess.Popen(  # noqa: S603 - our own programs
                self.command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                start_new_session=True, env={**os.environ, **self.environment},
            )  # fmt: skip
        self.starts += 1

    @property
    def running(self) -> bool:
        """Return True if the process is alive."""
        return self.child is not None and self.child.poll() is None

    def _signal(self, number: signal.Signals) -> None:
        if self.child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child.pid, number)

    def freeze(self, *, frozen: bool) -> None:
        """Send SIGSTOP or SIGCONT, to simulate a machine that hangs unnoticed."""
        self._signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    def kill(self) -> None:
        """Send SIGKILL to the process and all its children."""
        self._signal(signal.SIGKILL)
        if self.child is not None:
            self.child.wait()

    def stop(self, seconds: float = 15.0) -> None:
        """Send SIGTERM, and SIGKILL if the process does not end."""
        if self.child is None:
            return
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self.child.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(seconds)
        self.kill()

    def tail(self, lines: int = 15) -> str:
        """Return the end of the process's log."""
        try:
            return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
        except OSError:
            return ""


def wait_until(condition: Callable[[], bool], seconds: float, *, ignored: tuple[type[Exception], ...]) -> bool:
    """Wait until the condition is met. An error of `ignored` means not yet.

    Returns False after `seconds`.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(*ignored):
            if condition():
                return True
        time.sleep(0.05)
    return False


def _await(answers: Callable[[], bool], process: Process, seconds: float) -> None:
    """Wait until `answers` returns True.

    Raises ConfigurationError with the end of the process's log.
    """

    def answers_or_ended() -> bool:
        return not process.running or answers()

    ready = wait_until(answers_or_ended, seconds, ignored=(OSError,))
    if not process.running:
        raise ConfigurationError(f"{process.name} exited during start-up:\n{process.tail()}")
    if not ready:
        raise ConfigurationError(f"{process.name} did not become ready within {seconds:g} s:\n{process.tail()}")


def await_http(url: str, process: Process, seconds: float = 30.0) -> None:
    """Wait until the URL answers 200.

    Raises ConfigurationError with the end of the process's log.
    """

    def answers() -> bool:
        try:
            with urlopen(url, timeout=1) as answer:  # noqa: S310 - loopback http
                return int(answer.status) == 200
        except HTTPError as error:
            error.close()
            return False

    _await(answers, process, seconds)


def await_port(port: int, process: Process, seconds: float = 30.0) -> None:
    """Wait until the port accepts connections.

    Raises ConfigurationError with the end of the process's log.
    """

    def answers() -> bool:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True

    _await(answers, process, seconds)
