"""Configuration of the workloads, rendered from the resources; the same in a cluster and embedded."""

from pathlib import Path
from typing import TypeVar

from pydantic import Field, ValidationError

from pocket_api.base import ManifestError, Model, problem_of
from pocket_api.relayminer import Chain, Miner, Relayer, Service


class SupplierEntry(Model):
    """A supplier of the RelayMiner; its key lies in the keys folder."""

    operator_address: str
    services: tuple[str, ...] = ()


class WorkloadConfig(Model):
    """What relayer and miner have in common."""

    name: str
    namespace: str
    prefix: str
    chain: Chain
    redis_url: str = Field(repr=False)
    keys_dir: Path
    data_dir: Path
    admin_host: str = "0.0.0.0"
    admin_port: int = Field(default=9090, ge=0, le=65535)
    services: tuple[Service, ...]
    suppliers: tuple[SupplierEntry, ...]


class RelayerConfig(WorkloadConfig):
    """One relayer pod."""

    relayer: Relayer
    host: str = "0.0.0.0"


class MinerConfig(WorkloadConfig):
    """One miner pod."""

    miner: Miner


C = TypeVar("C", bound=WorkloadConfig)


def read_config(model: type[C], path: Path) -> C:
    """A workload's configuration from its JSON file; raises ManifestError."""
    try:
        return model.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        raise ManifestError(f"{path}: {problem_of(error)}") from error
