"""`python -m pocket_miner --config FILE`: the miner pod."""

import argparse
import os
import sys
from pathlib import Path

import uvloop
from prometheus_client import disable_created_metrics

from pocket.api.base import ManifestError
from pocket.api.workload import MinerConfig, read_config
from pocket.runtime import logs
from pocket.runtime.program import run_program
from pocket_miner.process.miner_process import MinerProcess


def main() -> int:
    """Run the miner.

    Returns 0 after a clean stop, 78 for an invalid configuration.
    """
    parser = argparse.ArgumentParser(prog="miner", description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    options = parser.parse_args()
    logs.configure("miner", os.environ.get("LOG_LEVEL", "INFO"))
    try:
        config = read_config(MinerConfig, options.config)
    except ManifestError as error:
        sys.stderr.write(f"miner: {error}\n")
        return os.EX_CONFIG
    # `_created` series would double the response and are not used. prometheus_client lacks annotations there.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    return run_program("miner", MinerProcess(config).run(), uvloop.run)


if __name__ == "__main__":
    sys.exit(main())
