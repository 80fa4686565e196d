"""Define the configuration of the workloads, rendered from the resources.

It is the same in a cluster and embedded. Default values are not written, so that an operator with more fields writes
the same text.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import structlog
from pydantic import Field, ValidationError
from structlog.typing import FilteringBoundLogger

from pocket.api.base import ManifestError, Model, problem_of
from pocket.api.lenient import read_known
from pocket.api.redis import RedisAccess
from pocket.api.relayminer import ChainSpec, ConnectionLimits, Metering, Recording, ResponseCompression
from pocket.api.services import ServiceSpec
from pocket.api.signer import SignerAccess
from pocket.api.simulation import Simulation
from pocket.input_files import InputFileError, decoded, json_value


class SupplierEntry(Model):
    """A supplier of the RelayMiner. Its key is in the keys folder."""

    operator_address: str
    services: tuple[str, ...] = Field(default=(), description="Services it is limited to. Empty: all it is staked for.")


class ReloadableConfig(Model):
    """The part of a relayer's configuration that is applied without restart.

    It has its own file.
    """

    suppliers: tuple[SupplierEntry, ...] = ()
    services: tuple[ServiceSpec, ...] = ()
    simulation: Simulation = Simulation()
    response_compression: ResponseCompression = ResponseCompression()
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def limits(self) -> Mapping[str, frozenset[str]]:
        """Return services by supplier address, of the suppliers that are limited."""
        return {entry.operator_address: frozenset(entry.services) for entry in self.suppliers if entry.services}


class WorkloadConfig(Model):
    """Configuration common to relayer and miner."""

    name: str
    namespace: str
    prefix: str
    chain: ChainSpec
    redis_url: str = Field(repr=False, description="A URL, or env:NAME for the variable that holds it.")
    redis_access: RedisAccess = RedisAccess()
    keys_dir: Path
    signer: SignerAccess | None = Field(default=None, description="Signer of the remote keys in the keys folder.")
    data_dir: Path
    admin_host: str = "0.0.0.0"
    admin_port: int = Field(default=9090, ge=0, le=65535)
    debug_port: int | None = Field(default=None, ge=1, le=65000, description="First port of /debug on localhost.")


class RelayerConfig(WorkloadConfig):
    """Configuration of one relayer pod."""

    hot_file: Path = Field(description="File with a ReloadableConfig.")
    secrets_dir: Path | None = Field(default=None, description="Folder of the Secrets referenced by backends' auth.")
    metering: Metering = Metering()
    web_socket_handshake: Literal["log", "enforce"] = "log"
    host: str = "0.0.0.0"
    port: int = Field(default=8080, ge=0, le=65535)
    workers: int = Field(default=2, ge=1, le=64)
    recording: Recording = Recording.STRICT
    shards: int = Field(default=16, ge=1, description="Number of the miners' shards, for notifying their owners.")
    seal_after_blocks: int = Field(default=1, ge=0, description="That of the miners.")
    connections: ConnectionLimits = ConnectionLimits()
    drain_seconds: float = Field(default=30.0, ge=0)
    hung_worker_seconds: float = Field(
        default=10.0, ge=3, description="Seconds without heartbeat until a worker is killed."
    )


class LeaseOwner(Model):
    """An owner reference."""

    api_version: str
    kind: str
    name: str
    uid: str


class MinerConfig(WorkloadConfig):
    """Configuration of one miner pod."""

    seal_after_blocks: int = Field(default=1, ge=0)
    retention_days: int = Field(default=400, ge=1)
    check_endpoints: bool = True
    shards: int = Field(default=16, ge=1)
    lease: str | None = Field(
        default=None, description="Group of the Kubernetes Leases for shards. None: the Leases are in Redis."
    )
    lease_owner: LeaseOwner | None = Field(default=None, description="Object with which the Leases are deleted.")
    peer_domain: str = Field(default="", description="Domain of the pods' names.")
    keys_required: bool = Field(default=True, description="End if there is no key, instead of waiting for one.")


C = TypeVar("C", bound=WorkloadConfig)
M = TypeVar("M", bound=Model)
_LOG: FilteringBoundLogger = structlog.get_logger()


def config_text(config: Model) -> str:
    """Return the text that a workload reads.

    It holds only values that differ from defaults.
    """
    return config.model_dump_json(by_alias=True, exclude_defaults=True, indent=2) + "\n"


def read_config(model: type[C], path: Path, environment: Mapping[str, str] = os.environ) -> C:
    """Read a workload's configuration from its JSON file and fill in the Redis URL.

    Fields that this version does not know come from a newer operator: they are logged and ignored. Raises
    ManifestError.
    """
    try:
        config = _parse(model, path.read_bytes(), path)
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}") from error
    if not config.redis_url.startswith("env:"):
        return config
    variable = config.redis_url.removeprefix("env:")
    if not environment.get(variable):
        raise ManifestError(f"{path}: redisUrl names the environment variable {variable}, which is not set")
    return config.model_copy(update={"redis_url": environment[variable].strip()})


def parse_reloadable_config(content: bytes, path: Path) -> ReloadableConfig:
    """Parse the reloadable configuration, with unknown fields as in `read_config`.

    Raises ManifestError.
    """
    return _parse(ReloadableConfig, content, path)


def _parse(model: type[M], content: bytes, path: Path) -> M:
    try:
        content_tree: Any = json_value(decoded(content, str(path)), str(path))
    except InputFileError as error:
        raise ManifestError(str(error)) from None
    try:
        config, ignored = read_known(model, content_tree)
    except ValidationError as error:
        raise ManifestError(f"{path}: {problem_of(error)}") from error
    if ignored:
        _LOG.warning("unknown fields ignored: update the image, or remove them", file=str(path), fields=list(ignored))
    return config
