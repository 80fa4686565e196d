"""Where a miner's configuration and volume are, when nobody says it: inside its pod."""

import os
from pathlib import Path
from typing import Final

import click

from pocket.api.base import ManifestError
from pocket.api.workload import MinerConfig, read_config

VARIABLE: Final = "POCKET_MINER_CONFIG"
_POD: Final = Path("/config/miner.json")


def configuration(given: Path | None) -> MinerConfig | None:
    """The miner's configuration: the file that is named, by the variable too, or the pod's; None without any."""
    named = os.environ.get(VARIABLE)
    path = given or (Path(named) if named else _POD if _POD.exists() else None)
    if path is None:
        return None
    try:
        return read_config(MinerConfig, path)
    except ManifestError as error:
        raise click.ClickException(str(error)) from None


def data_folder(given: Path | None) -> Path:
    """The data folder that is named, or that of the configuration."""
    if given is not None:
        return given
    found = configuration(None)
    if found is None:
        raise click.ClickException("name the miner's data folder: --data FOLDER")
    return found.data_dir
