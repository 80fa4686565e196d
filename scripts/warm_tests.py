"""Run pytest again and again in forked processes.

So only the product and its tests are imported each time.

`WarmTests` starts this file as a program that answers a line for each run. Libraries that one run imported are kept for
the next ones. The product is never imported by the program itself, because each run tests another version of it.
"""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_OPTIONS = (
    "-q", "-x", "-n", "0", "-p", "no:cacheprovider", "-p", "no:randomly", "--no-header", "--tb=line",
    "-W", "ignore::pytest.PytestAssertRewriteWarning",  # plugins are among what is imported
)  # fmt: skip
_POLL_SECONDS = 0.02
_SHOWN = 1000  # last characters of the output


class WarmTests:
    """A program that runs tests against the sources in some folders."""

    def __init__(self, sources: Sequence[Path]) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, sources)),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self._program = subprocess.Popen(
            [sys.executable, __file__], cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, start_new_session=True,
        )  # fmt: skip

    def run(self, arguments: Sequence[str], seconds: float) -> tuple[int | None, str]:
        """Run tests until one fails.

        Returns pytest's exit code, None if it took longer than `seconds`, and the end of its output.
        """
        if self._program.stdin is None or self._program.stdout is None:
            raise RuntimeError("the program was started without pipes")
        self._program.stdin.write(json.dumps([list(arguments), seconds]) + "\n")
        self._program.stdin.flush()
        code, output = json.loads(self._program.stdout.readline())
        return code, output

    def close(self) -> None:
        """End the program."""
        if self._program.stdin is not None:
            self._program.stdin.close()
        self._program.wait()


def main() -> None:
    """Answer each line `[arguments, seconds]` with a line `[exit code, output]`."""
    warm: set[str] = set()
    for line in sys.stdin:
        arguments, seconds = json.loads(line)
        # What a killed run leaves goes with the folder.
        with tempfile.TemporaryDirectory(prefix="m-", ignore_cleanup_errors=True) as folder:
            code = _forked(arguments, seconds, Path(folder))
            output = (Path(folder) / "output").read_text(encoding="utf-8", errors="replace")
            names = Path(folder) / "modules"
            imported = set(names.read_text(encoding="utf-8").split()) if names.exists() else set()
        print(json.dumps([code, output[-_SHOWN:]]), flush=True)
        for name in sorted(imported - warm):
            with contextlib.suppress(Exception):  # some can only be imported by others
                importlib.import_module(name)
        warm |= imported


def _forked(arguments: list[str], seconds: float, folder: Path) -> int | None:
    """Run pytest in a forked process.

    Returns its exit code, None if it was killed after `seconds`.
    """
    child = os.fork()
    if child == 0:
        code = 3  # pytest's for an internal error
        try:
            code = _tests(arguments, folder)
        except BaseException:  # noqa: BLE001 - the program must answer
            traceback.print_exc()
        finally:
            os._exit(code)
    ends_at = time.monotonic() + seconds
    status = None
    while status is None and time.monotonic() < ends_at:
        ended, waited = os.waitpid(child, os.WNOHANG)
        status = waited if ended else None
        time.sleep(_POLL_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # and what it has started
    if status is None:
        os.waitpid(child, 0)
        return None
    return os.waitstatus_to_exitcode(status)


def _tests(arguments: list[str], folder: Path) -> int:
    os.setsid()
    output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ["TMPDIR"], tempfile.tempdir = str(folder), None
    sys.path[:0] = os.environ["PYTHONPATH"].split(os.pathsep)
    sys.modules["__main__"] = ModuleType("__main__")  # what tests start by `spawn` must not be this program
    import pytest  # noqa: PLC0415 - the first run makes it warm

    code = int(pytest.main([*_OPTIONS, *arguments]))
    sys.stdout.flush()
    (folder / "modules").write_text(
        "\n".join(name for name, module in sys.modules.items() if _is_of_a_library(name, module)), encoding="utf-8"
    )
    return code


def _is_of_a_library(name: str, module: Any) -> bool:
    """Return True for a public module that is neither of the product nor of its tests."""
    file = getattr(module, "__file__", None)
    if not file or name == "__main__" or any(part.startswith("_") for part in name.split(".")):
        return False  # a private module may only be imported by its package
    ours = [ROOT, *map(Path, os.environ["PYTHONPATH"].split(os.pathsep))]
    path = Path(file)
    return path.is_relative_to(ROOT / ".venv") or not any(path.is_relative_to(folder) for folder in ours)


if __name__ == "__main__":
    main()
