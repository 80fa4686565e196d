"""Pure builders of the workloads' configuration from RelayMiner and Supplier resources."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pocket_api.relayminer import RelayMiner
from pocket_api.supplier import Supplier
from pocket_api.workload import MinerConfig, RelayerConfig, SupplierEntry, SupplierList


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a workload runs: what differs between a pod and an embedded process."""

    redis_url: str
    keys_dir: Path
    data_dir: Path
    suppliers_file: Path | None = None
    host: str = "0.0.0.0"
    admin_port: int = 9090
    port: int | None = None
    lease: str | None = None
    keys_required: bool = True

    def __repr__(self) -> str:
        return f"Placement(data_dir={self.data_dir}, host={self.host})"


def supplier_list(suppliers: Iterable[tuple[str, tuple[str, ...]]]) -> SupplierList:
    """Who is served, by address, with the services that each is limited to."""
    entries = (SupplierEntry(operator_address=address, services=services) for address, services in suppliers)
    return SupplierList(suppliers=tuple(sorted(entries, key=lambda entry: entry.operator_address)))


def suppliers_of(relay_miner: RelayMiner, suppliers: Iterable[Supplier]) -> SupplierList:
    """Suppliers that name this RelayMiner."""
    return supplier_list(
        (supplier.spec.operator_address, supplier.spec.services)
        for supplier in suppliers
        if supplier.spec.relay_miner_ref.name == relay_miner.metadata.name
        and supplier.metadata.namespace == relay_miner.metadata.namespace
    )


def _common(relay_miner: RelayMiner, placement: Placement) -> dict[str, object]:
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
    }


def relayer_config(relay_miner: RelayMiner, placement: Placement) -> RelayerConfig:
    """Configuration of one relayer."""
    spec = relay_miner.spec
    return RelayerConfig.model_validate(
        {
            **_common(relay_miner, placement),
            "services": spec.services,
            "suppliers_file": placement.suppliers_file,
            "host": placement.host,
            "port": spec.relayer.port if placement.port is None else placement.port,
            "workers": spec.relayer.workers,
            "recording": spec.relayer.recording,
            "drain_seconds": spec.relayer.drain_seconds,
        }
    )


def miner_config(relay_miner: RelayMiner, placement: Placement) -> MinerConfig:
    """Configuration of one miner."""
    return MinerConfig.model_validate(
        {
            **_common(relay_miner, placement),
            "seal_after_blocks": relay_miner.spec.miner.seal_after_blocks,
            "shards": relay_miner.spec.miner.shards,
            "lease": placement.lease,
            "keys_required": placement.keys_required,
        }
    )
