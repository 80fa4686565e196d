"""Configuration of the workloads, rendered from the resources; the same in a cluster and embedded.

An operator of another version may have written it: fields that are not known are left out with a warning, and what has
its default value is not written at all, so that an operator with more fields writes the same text.
"""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, ValidationError

from pocket_api.base import ManifestError, Model, problem_of
from pocket_api.lenient import read_leniently
from pocket_api.relayminer import Chain, Metering, Recording, ResponseCompression
from pocket_api.services import Service
from pocket_api.simulation import Simulation

_LOG = logging.getLogger("config")


class SupplierEntry(Model):
    """A supplier of the RelayMiner; its key lies in the keys folder."""

    operator_address: str
    services: tuple[str, ...] = Field(default=(), description="What it is limited to; empty: all it is staked for.")


class HotConfig(Model):
    """The part of a relayer's configuration that is taken up while it runs: a file of its own."""

    suppliers: tuple[SupplierEntry, ...] = ()
    services: tuple[Service, ...] = ()
    simulation: Simulation = Simulation()
    response_compression: ResponseCompression = ResponseCompression()
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def limits(self) -> Mapping[str, frozenset[str]]:
        """Services by supplier address, of the suppliers that are limited."""
        return {entry.operator_address: frozenset(entry.services) for entry in self.suppliers if entry.services}


class WorkloadConfig(Model):
    """What relayer and miner have in common."""

    name: str
    namespace: str
    prefix: str
    chain: Chain
    redis_url: str = Field(repr=False, description="A URL, or env:NAME for the variable that holds it.")
    keys_dir: Path
    data_dir: Path
    admin_host: str = "0.0.0.0"
    admin_port: int = Field(default=9090, ge=0, le=65535)
    debug_port: int | None = Field(default=None, ge=1, le=65000, description="First port of /debug on localhost.")


class RelayerConfig(WorkloadConfig):
    """One relayer pod."""

    hot_file: Path = Field(description="A HotConfig.")
    secrets_dir: Path | None = Field(default=None, description="Folder of the Secrets that backends' auth names.")
    metering: Metering = Metering()
    web_socket_handshake: Literal["log", "enforce"] = "log"
    host: str = "0.0.0.0"
    port: int = Field(default=8080, ge=0, le=65535)
    workers: int = Field(default=2, ge=1, le=64)
    recording: Recording = Recording.STRICT
    shards: int = Field(default=16, ge=1, description="Of the miners: whoever has news wakes the owner of a shard.")
    drain_seconds: float = Field(default=30.0, ge=0)
    hung_worker_seconds: float = Field(default=10.0, ge=3, description="Silence after which a worker is killed.")


class LeaseOwner(Model):
    """An owner reference."""

    api_version: str
    kind: str
    name: str
    uid: str


class MinerConfig(WorkloadConfig):
    """One miner pod."""

    seal_after_blocks: int = Field(default=1, ge=0)
    retention_days: int = Field(default=400, ge=1)
    check_endpoints: bool = True
    shards: int = Field(default=16, ge=1)
    lease: str | None = Field(
        default=None, description="Group of the Kubernetes Leases by which miners share shards; None: kept in Redis."
    )
    lease_owner: LeaseOwner | None = Field(default=None, description="What the Leases are deleted with.")
    peer_domain: str = Field(default="", description="Domain below which pods of the group have their names.")
    keys_required: bool = Field(default=True, description="Whether to end when there is no key, instead of waiting.")


C = TypeVar("C", bound=WorkloadConfig)
M = TypeVar("M", bound=Model)


def config_text(config: Model) -> str:
    """Return the text that a workload reads: what differs from the defaults, and nothing else."""
    return config.model_dump_json(by_alias=True, exclude_defaults=True, indent=2) + "\n"


def read_config(model: type[C], path: Path, environment: Mapping[str, str] = os.environ) -> C:
    """A workload's configuration from its JSON file, with the Redis URL filled in; raises ManifestError."""
    try:
        config = _parsed(model, path.read_bytes(), path)
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}") from error
    if not config.redis_url.startswith("env:"):
        return config
    variable = config.redis_url.removeprefix("env:")
    if not environment.get(variable):
        raise ManifestError(f"{path}: redisUrl names the environment variable {variable}, which is not set")
    return config.model_copy(update={"redis_url": environment[variable].strip()})


def parse_hot_config(content: bytes, path: Path) -> HotConfig:
    """The hot part as it stands in a file; raises ManifestError."""
    return _parsed(HotConfig, content, path)


def _parsed(model: type[M], content: bytes, path: Path) -> M:
    try:
        document = json.loads(content)
    except ValueError as error:
        raise ManifestError(f"{path}: Invalid JSON: {error}") from error
    if not isinstance(document, dict):
        raise ManifestError(f"{path}: not a JSON object")
    try:
        config, unknown = read_leniently(model, document)
    except ValidationError as error:
        raise ManifestError(f"{path}: {problem_of(error)}") from error
    if unknown:
        fields = {"file": str(path), "unknown": list(unknown)}
        _LOG.warning("fields of another version are left out: %s", ", ".join(unknown), extra={"fields": fields})
    return config
