"""Pure builders of the workloads' configuration from RelayMiner and Supplier resources."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pocket_api.relayminer import RelayMiner
from pocket_api.supplier import Supplier
from pocket_api.workload import MinerConfig, RelayerConfig, SupplierEntry


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a workload runs: what differs between a pod and an embedded process."""

    redis_url: str
    keys_dir: Path
    data_dir: Path
    host: str = "0.0.0.0"
    admin_port: int = 9090
    port: int | None = None

    def __repr__(self) -> str:
        return f"Placement(data_dir={self.data_dir}, host={self.host})"


def suppliers_of(relay_miner: RelayMiner, suppliers: Iterable[Supplier]) -> tuple[SupplierEntry, ...]:
    """Suppliers that name this RelayMiner, by address."""
    mine = [
        supplier
        for supplier in suppliers
        if supplier.spec.relay_miner_ref.name == relay_miner.metadata.name
        and supplier.metadata.namespace == relay_miner.metadata.namespace
    ]
    entries = (SupplierEntry(operator_address=s.spec.operator_address, services=s.spec.services) for s in mine)
    return tuple(sorted(entries, key=lambda entry: entry.operator_address))


def _common(relay_miner: RelayMiner, suppliers: Iterable[Supplier], placement: Placement) -> dict[str, object]:
    spec = relay_miner.spec
    return {
        "name": relay_miner.metadata.name,
        "namespace": relay_miner.metadata.namespace,
        "prefix": relay_miner.prefix,
        "chain": spec.chain,
        "redis_url": placement.redis_url,
        "keys_dir": placement.keys_dir,
        "data_dir": placement.data_dir,
        "admin_host": placement.host,
        "admin_port": placement.admin_port,
        "services": spec.services,
        "suppliers": suppliers_of(relay_miner, suppliers),
    }


def relayer_config(relay_miner: RelayMiner, suppliers: Iterable[Supplier], placement: Placement) -> RelayerConfig:
    """Configuration of one relayer."""
    relayer = relay_miner.spec.relayer
    if placement.port is not None:
        relayer = relayer.model_copy(update={"port": placement.port})
    fields = _common(relay_miner, suppliers, placement)
    return RelayerConfig.model_validate({**fields, "relayer": relayer, "host": placement.host})


def miner_config(relay_miner: RelayMiner, suppliers: Iterable[Supplier], placement: Placement) -> MinerConfig:
    """Configuration of one miner."""
    fields = _common(relay_miner, suppliers, placement)
    return MinerConfig.model_validate({**fields, "miner": relay_miner.spec.miner})
