"""Supervise the workers of a relayer pod.

`pocket_relayer` has validated its settings. It is a program of its own, so that it does not hold what validates them
for as long as it runs.
"""

import asyncio
import os
import sys

from pocket.runtime import logs
from pocket.runtime.program import run_program
from pocket_relayer.process.supervisor import Supervisor, SupervisorSettings


def main() -> int:
    """Run the supervisor with the settings of the argument. Returns its exit code."""
    settings = SupervisorSettings.decode(sys.argv[1])
    logs.configure("relayer", os.environ.get("LOG_LEVEL", "INFO"))
    return run_program("relayer", Supervisor(settings).run(), asyncio.run)


if __name__ == "__main__":
    sys.exit(main())
