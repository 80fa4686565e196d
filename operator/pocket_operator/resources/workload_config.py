"""Pure builders of the workloads' configuration from RelayMiner and Supplier resources."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pocket.api.relayminer import RelayMiner
from pocket.api.supplier import Supplier
from pocket.api.workload import LeaseOwner, MinerConfig, RelayerConfig, ReloadableConfig, SupplierEntry


@dataclass(frozen=True, slots=True)
class RuntimePaths:
    """Where a workload runs: what differs between a pod and an embedded process."""

    redis_url: str
    keys_dir: Path
    data_dir: Path
    hot_file: Path = Path("/hot/hot.json")
    secrets_dir: Path | None = None
    host: str = "0.0.0.0"
    admin_port: int = 9090
    port: int | None = None
    lease: str | None = None
    lease_owner: LeaseOwner | None = None
    peer_domain: str = ""
    keys_required: bool = True
    debug_port: int = 6060

    def __repr__(self) -> str:
        return f"Placement(data_dir={self.data_dir}, host={self.host})"


def hot_config(relay_miner: RelayMiner, suppliers: Iterable[tuple[str, tuple[str, ...]]]) -> ReloadableConfig:
    """Services as declared; who is served, by address, with the services that each is limited to."""
    entries = (SupplierEntry(operator_address=address, services=services) for address, services in suppliers)
    return ReloadableConfig(
        suppliers=tuple(sorted(entries, key=lambda entry: entry.operator_address)),
        services=relay_miner.spec.services,
        simulation=relay_miner.spec.relayer.simulation,
        response_compression=relay_miner.spec.relayer.response_compression,
        log_level=relay_miner.spec.relayer.log_level,
    )


def suppliers_of(relay_miner: RelayMiner, suppliers: Iterable[Supplier]) -> list[tuple[str, tuple[str, ...]]]:
    """Suppliers that name this RelayMiner, with the services that each is limited to."""
    return [
        (supplier.spec.operator_address, supplier.spec.services)
        for supplier in suppliers
        if supplier.spec.relay_miner_ref.name == relay_miner.metadata.name
        and supplier.metadata.namespace == relay_miner.metadata.namespace
    ]


def _common(relay_miner: RelayMiner, placement: RuntimePaths) -> dict[str, object]:
    return {
        "name": relay_miner.metadata.name,
        "namespace": relay_miner.metadata.namespace,
        "prefix": relay_miner.prefix,
        "chain": relay_miner.spec.chain,
        "redis_url": placement.redis_url,
        "keys_dir": placement.keys_dir,
        "data_dir": placement.data_dir,
        "admin_host": placement.host,
        "admin_port": placement.admin_port,
        "debug_port": placement.debug_port if relay_miner.spec.debug else None,
    }


def relayer_config(relay_miner: RelayMiner, placement: RuntimePaths) -> RelayerConfig:
    """Configuration of one relayer."""
    spec = relay_miner.spec
    return RelayerConfig.model_validate(
        {
            **_common(relay_miner, placement),
            "hot_file": placement.hot_file,
            "secrets_dir": placement.secrets_dir,
            "metering": spec.relayer.metering,
            "web_socket_handshake": spec.relayer.web_socket_handshake,
            "host": placement.host,
            "port": spec.relayer.port if placement.port is None else placement.port,
            "workers": spec.relayer.workers,
            "recording": spec.relayer.recording,
            "shards": spec.miner.shards,
            "connections": spec.relayer.connections,
            "drain_seconds": spec.relayer.drain_seconds,
            "hung_worker_seconds": spec.relayer.hung_worker_seconds,
        }
    )


def miner_config(relay_miner: RelayMiner, placement: RuntimePaths) -> MinerConfig:
    """Configuration of one miner."""
    return MinerConfig.model_validate(
        {
            **_common(relay_miner, placement),
            "seal_after_blocks": relay_miner.spec.miner.seal_after_blocks,
            "retention_days": relay_miner.spec.miner.retention_days,
            "check_endpoints": relay_miner.spec.miner.check_endpoints,
            "shards": relay_miner.spec.miner.shards,
            "lease": placement.lease,
            "lease_owner": placement.lease_owner,
            "peer_domain": placement.peer_domain,
            "keys_required": placement.keys_required,
        }
    )
