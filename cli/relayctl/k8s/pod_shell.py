"""Run commands in pods and read their logs with kubectl.

It knows every way to log in to a cluster.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pocket.errors import PocketError

CONSOLE: Final = ("python", "-m", "pocket_miner.console")
_SECONDS: Final = 60
_REPORT: Final = (
    "python", "-c",
    "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9090/report', timeout=5).read().decode())",
)  # fmt: skip
_LARGEST: Final = 16 * 1024 * 1024


class PodCommandFailed(PocketError):
    """A command in a pod failed, or kubectl could not run it.

    The message has its last line.
    """


@dataclass(frozen=True, slots=True)
class PodShell:
    """Runs kubectl with the options that choose the cluster."""

    program: str
    options: tuple[str, ...] = ()

    @classmethod
    def of(cls, kubeconfig: str | None, context: str | None) -> "PodShell":
        """Find kubectl.

        It is the program that KUBECTL names, else the one in PATH. Raises PodCommandFailed.
        """
        program = os.environ.get("KUBECTL") or shutil.which("kubectl")
        if not program:
            raise PodCommandFailed("kubectl is not in PATH: install it, or name it in KUBECTL")
        options = [f"--kubeconfig={kubeconfig}"] if kubeconfig else []
        return cls(program, (*options, *([f"--context={context}"] if context else ())))

    def run(self, *arguments: str) -> str:
        """Run kubectl and return its output, at most 16 MiB. Raises PodCommandFailed."""
        try:
            done = subprocess.run(  # noqa: S603 - kubectl with arguments of ours, without a shell
                [self.program, *self.options, *arguments], capture_output=True, timeout=_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PodCommandFailed(f"{self.program}: {error}") from None
        if done.returncode:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise PodCommandFailed(lines[-1] if lines else f"kubectl {arguments[0]} ended with {done.returncode}")
        return done.stdout[-_LARGEST:].decode("utf-8", "replace")

    def execute(self, namespace: str, pod: str, container: str, command: Sequence[str]) -> str:
        """Run a command in a container and return its output. Raises PodCommandFailed."""
        return self.run("exec", "-n", namespace, pod, "-c", container, "--", *command)

    def console(self, namespace: str, pod: str, *arguments: str) -> str:
        """Run an inspection command in a miner's pod. Raises PodCommandFailed."""
        return self.execute(namespace, pod, "miner", [*CONSOLE, *arguments])

    def report(self, namespace: str, pod: str, component: str) -> Any:
        """Return the pod's own report as JSON. Raises PodCommandFailed."""
        try:
            return json.loads(self.execute(namespace, pod, component, _REPORT))
        except ValueError:
            raise PodCommandFailed(f"the report of {pod} is not JSON") from None

    def logs(self, namespace: str, pod: str, *, lines: int, previous: bool = False) -> str:
        """Return the last lines of all containers' logs. Raises PodCommandFailed."""
        options = [f"--tail={lines}", "--all-containers", "--prefix", "--timestamps"]
        return self.run("logs", "-n", namespace, pod, *options, *(["--previous"] if previous else []))
