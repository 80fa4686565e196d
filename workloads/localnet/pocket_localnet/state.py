"""Hold the chain's state.

It is dictionaries of immutable records, copied shallowly per block and transaction.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from pocket.chain.model import Account, Application, ServiceConfig, StakedSupplier
from pocket.protocol.claims.proof_requirement import Claim, ProofParams
from pocket.protocol.pb import pocket_shared_pb2 as shared_pb
from pocket.protocol.relays.difficulty import BASE_TARGET
from pocket.protocol.sessions.windows import SharedParams
from pocket_localnet.genesis import Genesis, TokenomicsGenesis

BlockHash = Callable[[int], bytes]
ClaimKey = tuple[str, str]  # session id, supplier operator address


@dataclass(frozen=True, slots=True)
class RegisteredService:
    """A service. Its price history holds (effective height, compute units per relay)."""

    id: str
    name: str
    owner_address: str
    compute_units_per_relay: int
    history: tuple[tuple[int, int], ...] = ()

    def compute_units_at(self, height: int) -> int:
        """Return the units effective at a height.

        Before the history begins that is the live value.
        """
        effective_units = [units for effective, units in self.history if effective <= height]
        return effective_units[-1] if effective_units else self.compute_units_per_relay


@dataclass(frozen=True, slots=True)
class DifficultyEntry:
    """A difficulty with the height from which it is effective."""

    effective_height: int
    target_hash: bytes
    num_relays_ema: int


@dataclass(frozen=True, slots=True)
class StoredProof:
    """A submitted proof until the end blocker verifies it."""

    supplier_operator_address: str
    session_id: str
    proof: bytes


@dataclass(slots=True)
class State:
    """State after `height`. `time_ns` is that block's time in nanoseconds."""

    chain_id: str
    minimum_gas_price: str
    tokenomics: TokenomicsGenesis
    proof_params: ProofParams
    live_shared_params: SharedParams
    num_suppliers_per_session: int
    target_num_relays: int
    supplier_min_stake: int
    supplier_staking_fee: int
    application_min_stake: int
    height: int = 0
    time_ns: int = 0
    shared_history: tuple[tuple[int, SharedParams], ...] = ()
    accounts: dict[str, Account] = field(default_factory=dict)
    balances: dict[str, int] = field(default_factory=dict)
    gateways: dict[str, int] = field(default_factory=dict)
    services: dict[str, RegisteredService] = field(default_factory=dict)
    difficulties: dict[str, tuple[DifficultyEntry, ...]] = field(default_factory=dict)
    applications: dict[str, Application] = field(default_factory=dict)
    suppliers: dict[str, StakedSupplier] = field(default_factory=dict)
    claims: dict[ClaimKey, Claim] = field(default_factory=dict)
    proofs: dict[ClaimKey, StoredProof] = field(default_factory=dict)
    nonces: dict[tuple[str, int], None] = field(default_factory=dict)

    def copy(self) -> "State":
        """Return an independent copy that shares the immutable records."""
        return replace(
            self,
            accounts=dict(self.accounts),
            balances=dict(self.balances),
            gateways=dict(self.gateways),
            services=dict(self.services),
            difficulties=dict(self.difficulties),
            applications=dict(self.applications),
            suppliers=dict(self.suppliers),
            claims=dict(self.claims),
            proofs=dict(self.proofs),
            nonces=dict(self.nonces),
        )

    def shared_params_at(self, height: int) -> SharedParams:
        """Return the newest params effective at `height`, the live ones without history."""
        effective_params = [params for effective, params in self.shared_history if effective <= height]
        return effective_params[-1] if effective_params else self.live_shared_params

    def difficulty_at(self, service_id: str, height: int) -> DifficultyEntry:
        """Return the newest difficulty effective at `height`, the base target without one."""
        entries = [e for e in self.difficulties.get(service_id, ()) if e.effective_height <= height]
        return entries[-1] if entries else DifficultyEntry(height, BASE_TARGET, self.target_num_relays)

    def credit(self, address: str, upokt: int) -> None:
        """Add to a balance, creating the account without public key."""
        self.account(address)
        self.balances[address] = self.balances.get(address, 0) + upokt

    def account(self, address: str) -> Account:
        """Return the account, created if new."""
        if address not in self.accounts:
            self.accounts[address] = Account(address, len(self.accounts), 0, None)
        return self.accounts[address]


def from_genesis(genesis: Genesis) -> State:
    """Return the state before the first block."""
    params = SharedParams(
        **genesis.shared_params.model_dump(), session_grid_anchor_height=1, session_number_at_anchor=1
    )
    proof = genesis.proof_params
    state = State(
        chain_id=genesis.chain_id,
        minimum_gas_price=genesis.minimum_gas_price,
        tokenomics=genesis.tokenomics,
        proof_params=ProofParams(
            proof.proof_request_probability,
            proof.proof_requirement_threshold,
            proof.proof_missing_penalty,
            proof.proof_submission_fee,
        ),
        live_shared_params=params,
        num_suppliers_per_session=genesis.num_suppliers_per_session,
        target_num_relays=genesis.target_num_relays,
        supplier_min_stake=genesis.supplier_min_stake,
        supplier_staking_fee=genesis.supplier_staking_fee,
        application_min_stake=genesis.application_min_stake,
        time_ns=genesis.time * 1_000_000_000,
    )
    for row in genesis.accounts:
        key = bytes.fromhex(row.public_key) if row.public_key else None
        number = len(state.accounts) if row.number is None else row.number
        state.accounts[row.address] = Account(row.address, number, 0, key)
        state.balances[row.address] = row.balance
    for gateway in genesis.gateways:
        state.gateways[gateway.address] = gateway.stake
    for service in genesis.services:
        state.services[service.id] = RegisteredService(
            service.id, service.name, service.owner, service.compute_units_per_relay
        )
        if service.target_hash:
            entry = DifficultyEntry(1, bytes.fromhex(service.target_hash), genesis.target_num_relays)
            state.difficulties[service.id] = (entry,)
    for app in genesis.applications:
        state.applications[app.address] = Application(app.address, app.stake, (app.service,), app.gateways, {}, 0)
    for supplier in genesis.suppliers:
        share = tuple(supplier.revenue_share.items()) or ((supplier.owner, 100),)
        history = tuple(
            ServiceConfig(
                service, 1, 0, share,
                tuple(
                    (shared_pb.RPCType.Value(kind), supplier.endpoint)
                    for kind in supplier.rpc_types.get(service, ("JSON_RPC",))
                ),
            )
            for service in supplier.services
        )  # fmt: skip
        state.suppliers[supplier.operator] = StakedSupplier(
            supplier.operator, supplier.owner, supplier.stake, frozenset(supplier.services), 0, history
        )
    return state
