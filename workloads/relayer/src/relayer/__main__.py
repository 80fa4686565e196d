"""`python -m relayer --config FILE`: the relayer pod; with `--worker N` one of its workers."""

import argparse
import asyncio
import os
import sys
from pathlib import Path

import uvloop
from pydantic import ValidationError

from pocket_api.base import problem_of
from pocket_api.workload import RelayerConfig
from shannon import logs
from shannon.program import run_program


def main() -> int:
    """Exit code: 0 after a clean stop, 78 for a configuration that cannot be used."""
    parser = argparse.ArgumentParser(prog="relayer", description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--worker", type=int)
    options = parser.parse_args()
    component = "relayer" if options.worker is None else f"relayer-worker-{options.worker}"
    logs.configure(component, os.environ.get("LOG_LEVEL", "INFO"))
    try:
        config = RelayerConfig.model_validate_json(options.config.read_text(encoding="utf-8"))
    except ValidationError as error:
        sys.stderr.write(f"relayer: {options.config}: {problem_of(error)}\n")
        return os.EX_CONFIG
    except OSError as error:
        sys.stderr.write(f"relayer: {options.config}: {error.strerror}\n")
        return os.EX_CONFIG
    if options.worker is None:
        from relayer.supervisor import Supervisor  # noqa: PLC0415 - the parent loads no relay code

        return run_program("relayer", Supervisor(config, options.config).run(), asyncio.run)
    from relayer.worker import Worker  # noqa: PLC0415 - the environment decides where metrics are kept first

    return run_program("relayer", Worker(config, options.worker).run(), uvloop.run)


if __name__ == "__main__":
    sys.exit(main())
