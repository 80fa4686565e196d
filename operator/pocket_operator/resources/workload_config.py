"""Build the workloads' configuration from RelayMiner and Supplier resources."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pocket.api.redis import RedisAccess
from pocket.api.relayminer import RelayMiner
from pocket.api.signer import SignerAccess
from pocket.api.supplier import Supplier
from pocket.api.workload import LeaseOwner, MinerConfig, RelayerConfig, ReloadableConfig, SupplierEntry


@dataclass(frozen=True, slots=True)
class RuntimePaths:
    """Paths, addresses and ports that differ between a pod and a local process."""

    redis_url: str
    keys_dir: Path
    data_dir: Path
    hot_file: Path = Path("/hot/hot.json")
    secrets_dir: Path | None = None
    signer_dir: Path | None = None
    host: str = "0.0.0.0"
    admin_host: str | None = None
    """The address of the admin port, `host` where it is None."""
    admin_port: int = 9090
    port: int | None = None
    lease: str | None = None
    lease_owner: LeaseOwner | None = None
    peer_domain: str = ""
    keys_required: bool = True
    debug_port: int = 6060
    redis_access: RedisAccess = field(default_factory=RedisAccess)

    def __repr__(self) -> str:
        return f"RuntimePaths(data_dir={self.data_dir}, host={self.host})"


def reloadable_config(relay_miner: RelayMiner, suppliers: Iterable[tuple[str, tuple[str, ...]]]) -> ReloadableConfig:
    """Return what relayers reload: the services and suppliers.

    With the services that each supplier is limited to.
    """
    entries = (SupplierEntry(operator_address=address, services=services) for address, services in suppliers)
    return ReloadableConfig(
        suppliers=tuple(sorted(entries, key=lambda entry: entry.operator_address)),
        services=relay_miner.spec.services,
        simulation=relay_miner.spec.relayer.simulation,
        response_compression=relay_miner.spec.relayer.response_compression,
        log_level=relay_miner.spec.relayer.log_level,
    )


def suppliers_of(relay_miner: RelayMiner, suppliers: Iterable[Supplier]) -> list[tuple[str, tuple[str, ...]]]:
    """Return the suppliers that name this RelayMiner, with their services.

    Those that each is limited to.
    """
    return [
        (supplier.spec.operator_address, supplier.spec.services)
        for supplier in suppliers
        if supplier.spec.relay_miner_ref.name == relay_miner.metadata.name
        and supplier.metadata.namespace == relay_miner.metadata.namespace
    ]


def _signer_access(relay_miner: RelayMiner, paths: RuntimePaths) -> SignerAccess | None:
    spec = relay_miner.spec.signer
    if spec is None:
        return None
    return SignerAccess(
        url=spec.url,
        tls_dir=paths.signer_dir if spec.tls_secret_ref is not None else None,
        timeout_seconds=spec.timeout_seconds,
        connections=spec.connections,
    )


def _common(relay_miner: RelayMiner, paths: RuntimePaths) -> dict[str, object]:
    return {
        "name": relay_miner.metadata.name,
        "namespace": relay_miner.metadata.namespace,
        "prefix": relay_miner.prefix,
        "chain": relay_miner.spec.chain,
        "redis_url": paths.redis_url,
        "redis_access": paths.redis_access,
        "keys_dir": paths.keys_dir,
        "signer": _signer_access(relay_miner, paths),
        "data_dir": paths.data_dir,
        "admin_host": paths.host if paths.admin_host is None else paths.admin_host,
        "admin_port": paths.admin_port,
        "debug_port": paths.debug_port if relay_miner.spec.debug else None,
    }


def relayer_config(relay_miner: RelayMiner, paths: RuntimePaths) -> RelayerConfig:
    """Return the configuration of a relayer."""
    spec = relay_miner.spec
    return RelayerConfig.model_validate(
        {
            **_common(relay_miner, paths),
            "hot_file": paths.hot_file,
            "secrets_dir": paths.secrets_dir,
            "metering": spec.relayer.metering,
            "web_socket_handshake": spec.relayer.web_socket_handshake,
            "host": paths.host,
            "port": spec.relayer.port if paths.port is None else paths.port,
            "workers": spec.relayer.workers,
            "recording": spec.relayer.recording,
            "shards": spec.miner.shards,
            "seal_after_blocks": spec.miner.seal_after_blocks,
            "connections": spec.relayer.connections,
            "drain_seconds": spec.relayer.drain_seconds,
            "hung_worker_seconds": spec.relayer.hung_worker_seconds,
        }
    )


def miner_config(relay_miner: RelayMiner, paths: RuntimePaths) -> MinerConfig:
    """Return the configuration of a miner."""
    return MinerConfig.model_validate(
        {
            **_common(relay_miner, paths),
            "seal_after_blocks": relay_miner.spec.miner.seal_after_blocks,
            "retention_days": relay_miner.spec.miner.retention_days,
            "check_endpoints": relay_miner.spec.miner.check_endpoints,
            "shards": relay_miner.spec.miner.shards,
            "lease": paths.lease,
            "lease_owner": paths.lease_owner,
            "peer_domain": paths.peer_domain,
            "keys_required": paths.keys_required,
        }
    )
