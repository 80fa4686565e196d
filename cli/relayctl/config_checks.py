"""Checks of resources before they are applied. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from pocket.api.manifests import Manifests
from pocket.api.relayminer import RelayMiner
from pocket.api.services import RPC_NUMBERS, BackendBase
from pocket.api.supplier import Supplier
from pocket.chain.model import NodeRetention, StakedSupplier
from pocket.chain.node_health import NodeAssessment, NodeHealth
from pocket.chain.preflight import LOW_BALANCE_UPOKT, clock_problem, gas_price_problem
from pocket.keys.sealed_box import SECRET_OF_NAMESPACE, Controller, SealError, Subject, UnknownController
from pocket.protocol.transactions.build import GasPrice

_KEPT_BLOCKS = 500
_BACKENDS = {number: name for name, number in RPC_NUMBERS.items()}


class Level(StrEnum):
    """Severity of a finding.

    With an error the relayer rejects or loses relays. A note is worth knowing.
    """

    ERROR = "error"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class ConfigIssue:
    """One issue with its location."""

    level: Level
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.level}: {self.where}: {self.text}"


def check_references(manifests: Manifests) -> list[ConfigIssue]:
    """Check that resources fit each other: names, keys, services.

    Secrets that are not among the files are noted.
    """
    issues: list[ConfigIssue] = []
    miners = {(m.metadata.namespace, m.metadata.name): m for m in manifests.relay_miners}
    seen: dict[str, str] = {}
    for supplier in manifests.suppliers:
        where = f"Supplier {supplier.metadata.name}"
        address = supplier.spec.operator_address
        if address in seen:
            issues.append(ConfigIssue(Level.ERROR, where, f"{address} is also the address of {seen[address]}"))
        seen.setdefault(address, where)
        miner = miners.get((supplier.metadata.namespace, supplier.spec.relay_miner_ref.name))
        if miner is None:
            name = supplier.spec.relay_miner_ref.name
            issues.append(ConfigIssue(Level.ERROR, where, f"no RelayMiner {name} in its namespace among these files"))
            continue
        offered = {service.id for service in miner.spec.services}
        for service in supplier.spec.services:
            if service not in offered:
                text = f"service {service} is not among the services of RelayMiner {miner.metadata.name}"
                issues.append(ConfigIssue(Level.ERROR, where, text))
        issues += _check_key(supplier, manifests)
    for miner in manifests.relay_miners:
        issues += _check_services(miner, manifests)
    return issues


def _check_key(supplier: Supplier, manifests: Manifests) -> Iterable[ConfigIssue]:
    where, key = f"Supplier {supplier.metadata.name}", supplier.spec.key
    if key.secret_ref is not None:
        if key.secret_ref.name not in manifests.secrets:
            text = f"Secret {key.secret_ref.name} must exist before relays are served"
            yield ConfigIssue(Level.NOTE, where, text)
        return
    sealing = Controller.of_texts(manifests.secrets.get(SECRET_OF_NAMESPACE, {}))
    subject = Subject(supplier.metadata.namespace, supplier.metadata.name, supplier.spec.operator_address)
    try:
        sealing.open(key.sealed or "", subject)
    except UnknownController:
        yield ConfigIssue(Level.NOTE, where, "its key is sealed to the operator, which alone can check it")
    except SealError as error:
        yield ConfigIssue(Level.ERROR, where, f"spec.key.sealed: {error}")


def _check_services(miner: RelayMiner, manifests: Manifests) -> Iterable[ConfigIssue]:
    names = {s.spec.relay_miner_ref.name for s in manifests.suppliers}
    if miner.metadata.name not in names:
        yield ConfigIssue(Level.NOTE, f"RelayMiner {miner.metadata.name}", "no Supplier among these files refers to it")
    for problem in miner.spec.relayer.simulation.problems():
        yield ConfigIssue(Level.NOTE, f"RelayMiner {miner.metadata.name}", f"simulation, currently disabled: {problem}")
    for service in miner.spec.services:
        where = f"RelayMiner {miner.metadata.name}, service {service.id}"
        backends = service.backends.by_type()
        if service.default_backend not in backends and set(backends) - {"webSocket", "grpc"}:
            text = f"relays without Rpc-Type go to {service.default_backend}, which has no backend: set defaultBackend"
            yield ConfigIssue(Level.NOTE, where, text)
        for kind, backend in backends.items():
            if backend.auth is not None and backend.auth.secret_ref.name not in manifests.secrets:
                text = f"{kind}: Secret {backend.auth.secret_ref.name} must exist before it is called"
                yield ConfigIssue(Level.NOTE, where, text)


def check_stake(supplier: Supplier, miner: RelayMiner, staked: StakedSupplier | None) -> list[ConfigIssue]:
    """Compare a supplier's stake with what is served here. `staked` None: not staked."""
    where = f"Supplier {supplier.metadata.name}"
    if staked is None:
        return [ConfigIssue(Level.ERROR, where, f"{supplier.spec.operator_address} is not staked")]
    issues = []
    if staked.unstake_session_end_height:
        text = f"it unstakes: its last session ends at height {staked.unstake_session_end_height}"
        issues.append(ConfigIssue(Level.NOTE, where, text))
    offered: Mapping[str, Mapping[str, BackendBase]] = {s.id: s.backends.by_type() for s in miner.spec.services}
    wanted = set(supplier.spec.services) or set(offered)
    for service in sorted(wanted - staked.service_ids):
        issues.append(
            ConfigIssue(Level.NOTE, where, f"service {service} is served here but not staked: no relay will arrive")
        )
    for service in sorted(staked.service_ids - wanted):
        issues.append(
            ConfigIssue(Level.ERROR, where, f"service {service} is staked but not served: relays are rejected")
        )
    declared = {
        (config.service_id, _BACKENDS.get(kind, f"type {kind}"))
        for config in staked.history
        for kind, _ in config.endpoints
        if config.service_id in wanted & staked.service_ids and not config.deactivation_height
    }
    for service, kind in sorted(declared):
        if kind not in offered.get(service, {}):
            text = f"service {service} is staked with {kind}, which has no backend: such relays are rejected"
            issues.append(ConfigIssue(Level.ERROR, where, text))
    return issues


def check_nodes(miner: RelayMiner, assessments: Mapping[str, NodeAssessment]) -> list[ConfigIssue]:
    """Report nodes that are not healthy, by name."""
    where = f"RelayMiner {miner.metadata.name}"
    return [
        ConfigIssue(
            Level.ERROR if assessment.rank is None else Level.NOTE, where, f"chain node {name}: {assessment.reason}"
        )
        for name, assessment in assessments.items()
        if assessment.health is not NodeHealth.HEALTHY
    ]


def check_terms(miner: RelayMiner, minimum_gas_price: str, block_time_ns: int, now_ns: int) -> list[ConfigIssue]:
    """Check the node's minimum gas price and this machine's clock.

    The clock is compared with the newest block.
    """
    where = f"RelayMiner {miner.metadata.name}"
    spec = miner.spec.chain
    issues = []
    if problem := gas_price_problem(minimum_gas_price, GasPrice.parse(spec.gas_price)):
        issues.append(ConfigIssue(Level.ERROR, where, problem))
    if problem := clock_problem(block_time_ns, now_ns, spec.block_seconds):
        issues.append(ConfigIssue(Level.NOTE, where, problem))
    return issues


def check_keeping(miner: RelayMiner, node: str, keeping: NodeRetention) -> list[ConfigIssue]:
    """Check that a node retains what miners query later.

    The needs are listed in docs/high-availability.md, "What a node must have".
    """
    texts = []
    if not keeping.transactions:
        texts.append('no transaction index (tx_index = "kv"): fees and errors of included transactions stay unknown')
    if not keeping.events:
        texts.append("no events of past blocks (discard_abci_responses = false): session outcomes stay unknown")
    if keeping.earliest > 1 and keeping.height - keeping.earliest < _KEPT_BLOCKS:
        kept = keeping.height - keeping.earliest
        texts.append(f"the last {kept} blocks only: settlements during a longer outage of a miner stay unknown")
    return [ConfigIssue(Level.NOTE, f"RelayMiner {miner.metadata.name}", f"node {node} keeps {text}") for text in texts]


def check_account(
    supplier: Supplier, balance_upokt: int, min_stake_upokt: int, staked: StakedSupplier, *, public_key: bool
) -> list[ConfigIssue]:
    """Check that a staked supplier can pay for claims and is known to gateways."""
    where = f"Supplier {supplier.metadata.name}"
    issues = []
    if balance_upokt < LOW_BALANCE_UPOKT:
        text = f"its account has {balance_upokt} upokt, less than 1 POKT: claims and proofs need fees"
        issues.append(ConfigIssue(Level.NOTE if balance_upokt else Level.ERROR, where, text))
    if not public_key:
        text = "its account has no public key on chain, gateways cannot verify its responses: let it sign a transaction"
        issues.append(ConfigIssue(Level.ERROR, where, text))
    if staked.stake_upokt < min_stake_upokt:
        text = f"its stake of {staked.stake_upokt} upokt is below the minimum of {min_stake_upokt}: it will be unstaked"
        issues.append(ConfigIssue(Level.ERROR, where, text))
    return issues
