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
from shannon.errors import PocketError


def main() -> int:
    """Exit code: 0 after a clean stop, 78 for a configuration that cannot be used."""
    parser = argparse.ArgumentParser(prog="relayer", description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--worker", type=int)
    options = parser.parse_args()
    logs.configure("relayer" if options.worker is None else f"relayer-worker-{options.worker}", os.environ.get("LOG_LEVEL", "INFO"))
    try:
        config = RelayerConfig.model_validate_json(options.config.read_text(encoding="utf-8"))
        if options.worker is None:
            from relayer.supervisor import Supervisor  # noqa: PLC0415 - the parent loads no relay code

            asyncio.run(Supervisor(config, options.config).run())
        else:
            from relayer.worker import Worker  # noqa: PLC0415 - metrics must be set up by the environment first

            uvloop.run(Worker(config, options.worker).run())
    except ValidationError as error:
        print(f"relayer: {options.config}: {problem_of(error)}", file=sys.stderr)
        return os.EX_CONFIG
    except OSError as error:
        print(f"relayer: {options.config}: {error.strerror}", file=sys.stderr)
        return os.EX_CONFIG
    except PocketError as error:
        print(f"relayer: {error}", file=sys.stderr)
        return os.EX_CONFIG
    except ExceptionGroup as group:
        known = [str(e) for e in group.exceptions if isinstance(e, PocketError)]
        if not known:
            raise
        print(f"relayer: {'; '.join(known)}", file=sys.stderr)
        return os.EX_CONFIG
    return 0


if __name__ == "__main__":
    sys.exit(main())
