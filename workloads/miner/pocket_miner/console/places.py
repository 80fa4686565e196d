"""Find a miner's configuration and data folder by their defaults inside its pod."""

import os
from pathlib import Path
from typing import Final

import click

from pocket.api.base import ManifestError
from pocket.api.workload import MinerConfig, read_config

VARIABLE: Final = "POCKET_MINER_CONFIG"
_POD: Final = Path("/config/miner.json")


def configuration(given: Path | None) -> MinerConfig | None:
    """Read the miner's configuration, None without a file.

    The file is the given one, the one that POCKET_MINER_CONFIG names, or the pod's. Raises ClickException if it is
    invalid.
    """
    named = os.environ.get(VARIABLE)
    path = given or (Path(named) if named else _POD if _POD.exists() else None)
    if path is None:
        return None
    try:
        return read_config(MinerConfig, path)
    except ManifestError as error:
        raise click.ClickException(str(error)) from None


def data_folder(given: Path | None) -> Path:
    """Return the given data folder, or that of the configuration."""
    if given is not None:
        return given
    config = configuration(None)
    if config is None:
        raise click.ClickException("name the miner's data folder: --data FOLDER")
    return config.data_dir
