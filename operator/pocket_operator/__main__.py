"""Run one replica of the operator: `python -m pocket_operator`."""

import argparse
import asyncio
import os
import sys
from pathlib import Path

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.runtime import logs
from pocket.runtime.program import run_program
from pocket_operator.app import LostLeadership, Operator, Options
from pocket_operator.decide.snapshot import UPDATE_DELAY_SECONDS, Settings
from pocket_operator.resources.context import Images

_LOG: FilteringBoundLogger = structlog.get_logger()
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def _own_namespace() -> str:
    if "POD_NAMESPACE" in os.environ:
        return os.environ["POD_NAMESPACE"]
    try:
        return _NAMESPACE_FILE.read_text(encoding="utf-8").strip()
    except OSError:
        return "pocket-system"


def _options() -> Options:
    defaults, environment = Images(), os.environ
    parser = argparse.ArgumentParser(prog="pocket-operator", description=__doc__)
    parser.add_argument(
        "--namespace", action="append", default=[], help="watch this namespace only (repeatable); default: all"
    )
    parser.add_argument("--own-namespace", default=_own_namespace(), help="where Lease and sealing keys are")
    parser.add_argument("--health-host", default="0.0.0.0")
    parser.add_argument("--health-port", type=int, default=8080)
    parser.add_argument("--relayer-image", default=environment.get("RELAYER_IMAGE", defaults.relayer))
    parser.add_argument("--miner-image", default=environment.get("MINER_IMAGE", defaults.miner))
    parser.add_argument("--console-image", default=environment.get("CONSOLE_IMAGE", defaults.console))
    parser.add_argument("--redis-image", default=environment.get("REDIS_IMAGE", defaults.redis))
    parser.add_argument("--image-pull-policy", default=environment.get("IMAGE_PULL_POLICY", defaults.pull_policy))
    parser.add_argument(
        "--update-delay-seconds",
        type=float,
        default=float(environment.get("UPDATE_DELAY_SECONDS", UPDATE_DELAY_SECONDS)),
        help="pause between the updates of two RelayMiners to a new release",
    )
    chosen = parser.parse_args()
    images = Images(
        relayer=chosen.relayer_image,
        miner=chosen.miner_image,
        console=chosen.console_image,
        redis=chosen.redis_image,
        pull_policy=chosen.image_pull_policy,
    )
    return Options(
        settings=Settings(chosen.own_namespace, images, chosen.update_delay_seconds),
        namespaces=tuple(chosen.namespace),
        health_host=chosen.health_host,
        health_port=chosen.health_port,
    )


def main() -> int:
    """Run until stopped.

    Returns the exit code: 0 after a clean stop, 1 after lost leadership, 78 for an invalid configuration.
    """
    options = _options()
    logs.configure("operator", os.environ.get("LOG_LEVEL", "INFO"))
    try:
        return run_program("operator", Operator(options).run(), asyncio.run)
    except* LostLeadership as lost:
        _LOG.error("lost leadership, exiting", error=lost.exceptions[0])
    return 1


if __name__ == "__main__":
    sys.exit(main())
