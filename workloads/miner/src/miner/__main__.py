"""`python -m miner --config FILE`: the miner pod."""

import argparse
import os
import sys
from pathlib import Path

import uvloop
from pydantic import ValidationError

from miner.process import Miner
from pocket_api.base import problem_of
from pocket_api.workload import MinerConfig
from shannon import logs
from shannon.program import run_program


def main() -> int:
    """Exit code: 0 after a clean stop, 78 for a configuration that cannot be used."""
    parser = argparse.ArgumentParser(prog="miner", description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    options = parser.parse_args()
    logs.configure("miner", os.environ.get("LOG_LEVEL", "INFO"))
    try:
        config = MinerConfig.model_validate_json(options.config.read_text(encoding="utf-8"))
    except ValidationError as error:
        sys.stderr.write(f"miner: {options.config}: {problem_of(error)}\n")
        return os.EX_CONFIG
    except OSError as error:
        sys.stderr.write(f"miner: {options.config}: {error.strerror}\n")
        return os.EX_CONFIG
    return run_program("miner", Miner(config).run(), uvloop.run)


if __name__ == "__main__":
    sys.exit(main())
