"""The chain: mempool, blocks, history.

Free of I/O, so a server or a test steps it.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from pocket.chain.model import Event, TransactionResult
from pocket.protocol.sessions.windows import SharedParams
from pocket.protocol.transactions.batches import MAX_TRANSACTION_BYTES
from pocket.protocol.transactions.build import transaction_hash
from pocket_localnet import ante, settlement
from pocket_localnet.ante import Transaction
from pocket_localnet.genesis import Genesis
from pocket_localnet.handlers import handle
from pocket_localnet.staking_handlers import pruned, unstaked
from pocket_localnet.state import State, from_genesis
from pocket_localnet.tx_rejected import TxRejected
from pocket_localnet.verification import failure_of


@dataclass(frozen=True, slots=True)
class IncludedTransaction:
    """A transaction in a block."""

    raw: bytes
    result: TransactionResult
    gas_wanted: int
    events: tuple[Event, ...]
    actions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CommittedBlock:
    """A block with its transactions and events."""

    height: int
    hash: bytes
    time_ns: int
    transactions: tuple[IncludedTransaction, ...]
    end_events: tuple[Event, ...]


@dataclass(slots=True)
class Faults:
    """Scripted misbehaviour. Counters decrease as they are used."""

    evict: int = 0  # accepted transactions that are dropped from the mempool
    refuse: list[tuple[int, str, str]] = field(default_factory=list)  # (code, codespace, log) for the next broadcasts
    fail: list[tuple[int, str, str]] = field(default_factory=list)  # for the next transactions in blocks, fees paid
    fail_before: list[tuple[int, str, str]] = field(default_factory=list)  # the same before a fee is paid
    hold_blocks: int = 0  # blocks that include no transaction
    lag_blocks: int = 0  # queries are answered from this many blocks ago


class LocalChain:
    """A single validator's chain.

    `hash_of(height, content)` computes block hashes, so recorded hashes can be replayed.
    """

    def __init__(
        self,
        genesis: Genesis,
        hash_of: Callable[[int, bytes], bytes] | None = None,
        first_height: int = 1,
        kept_states: int = 4096,
    ) -> None:
        self.genesis = genesis
        self.block_seconds = genesis.block_seconds
        self.faults = Faults()
        self.max_transaction_bytes = MAX_TRANSACTION_BYTES
        self.blocks: dict[int, CommittedBlock] = {}
        self.transactions: dict[str, IncludedTransaction] = {}
        self._hash_of = hash_of or (lambda height, content: hashlib.sha256(content).digest())
        self._states: dict[int, State] = {}
        self._kept = kept_states
        self._mempool: list[Transaction] = []
        self._known: set[str] = set()
        self._state = from_genesis(genesis)
        self._state.height = first_height - 1
        self._check_state = self._state.copy()
        self._scheduled: list[tuple[int, SharedParams]] = []
        self.step()

    @property
    def state(self) -> State:
        """Return the state after the latest block."""
        return self._state

    @property
    def height(self) -> int:
        """Return the latest committed height."""
        return self._state.height

    @property
    def served_height(self) -> int:
        """Return the height that queries see, behind the latest while the node lags."""
        return max(min(self._states), self.height - self.faults.lag_blocks)

    def block_hash(self, height: int) -> bytes:
        """Return the hash of a block.

        While block h executes, only hashes up to h are known.
        """
        block = self.blocks.get(height)
        return block.hash if block else b""

    def state_at(self, height: int) -> State | None:
        """Return the state after a block, None if it is unknown or pruned."""
        return self._states.get(height)

    def simulate(self, raw: bytes) -> int:
        """Return the gas used on the last committed state. Raises TxRejected."""
        transaction = ante.decode(raw)
        trial = self._state.copy()
        ante.check(transaction, trial, checking=True, simulate=True)
        gas = transaction.ante_gas
        for index, message in enumerate(transaction.messages):
            gas += handle(trial, self.block_hash, message, index).gas
        return gas

    def broadcast(self, raw: bytes) -> TransactionResult:
        """Admit a transaction to the mempool as CheckTx does. Code 0 is not inclusion."""
        tx_hash = transaction_hash(raw)
        if self.faults.refuse:
            return TransactionResult(tx_hash, *self.faults.refuse.pop(0))
        if tx_hash in self._known:
            return TransactionResult(tx_hash, 19, "sdk", "")
        if len(raw) > self.max_transaction_bytes:
            return TransactionResult(tx_hash, 21, "sdk", "")
        try:
            transaction = ante.decode(raw)
            trial = self._check_state.copy()
            ante.check(transaction, trial, checking=True)
        except TxRejected as rejected:
            return TransactionResult(tx_hash, rejected.code, rejected.codespace, rejected.log)
        if self.faults.evict:
            self.faults.evict -= 1
            return TransactionResult(tx_hash, 0, "", "")
        self._check_state = trial
        self._known.add(tx_hash)
        self._mempool.append(transaction)
        return TransactionResult(tx_hash, 0, "", "")

    def step(self, time_ns: int | None = None) -> CommittedBlock:
        """Commit the next block with everything in the mempool."""
        state = self._state.copy()
        state.height += 1
        previous_ns = state.time_ns
        state.time_ns = time_ns if time_ns is not None else previous_ns + int(self.block_seconds * 1_000_000_000)
        state.nonces = {key: None for key in state.nonces if key[1] >= previous_ns}
        pending, self._mempool = self._mempool, []
        if self.faults.hold_blocks:
            self.faults.hold_blocks -= 1
            self._mempool, pending = pending, []
        # The header, and so the hash, is fixed before the block executes.
        content = b"".join(
            [self.block_hash(state.height - 1), state.chain_id.encode(), state.height.to_bytes(8, "big"),
             state.time_ns.to_bytes(12, "big"), *(bytes.fromhex(t.tx_hash) for t in pending)]
        )  # fmt: skip
        block_hash = self._hash_of(state.height, content)
        self.blocks[state.height] = CommittedBlock(state.height, block_hash, state.time_ns, (), ())
        included = []
        for transaction in pending:
            state, result = self._deliver(state, transaction)
            included.append(result)
            self.transactions[transaction.tx_hash] = result
            if result.result.code:
                self._known.discard(transaction.tx_hash)  # a mempool removes a transaction that failed in a block
        events = self._end_block(state)
        block = replace(self.blocks[state.height], transactions=tuple(included), end_events=tuple(events))
        self.blocks[state.height] = block
        self._state = state
        self._states[state.height] = state
        self._states.pop(state.height - self._kept, None)
        self._check_state = state.copy()
        held, self._mempool = self._mempool, []
        for transaction in held:
            self._known.discard(transaction.tx_hash)
            self.broadcast(transaction.raw)
        return block

    def _deliver(self, state: State, transaction: Transaction) -> tuple[State, IncludedTransaction]:
        actions = tuple(row.type_url for row in transaction.body.messages)

        def included(code: int, codespace: str, log: str, gas: int, events: tuple[Event, ...]) -> IncludedTransaction:
            result = TransactionResult(transaction.tx_hash, code, codespace, log, state.height, gas)
            return IncludedTransaction(transaction.raw, result, transaction.gas_limit, events, actions)

        gas = transaction.ante_gas
        paid = state.copy()
        if self.faults.fail_before:
            return state, included(*self.faults.fail_before.pop(0), gas, ())
        try:
            ante.check(transaction, paid, checking=False)
        except TxRejected as rejected:
            return state, included(rejected.code, rejected.codespace, rejected.log, gas, ())
        trial = paid.copy()
        events = []
        if self.faults.fail:
            return paid, included(*self.faults.fail.pop(0), gas, ())
        try:
            for index, message in enumerate(transaction.messages):
                outcome = handle(trial, self.block_hash, message, index)
                gas += outcome.gas
                events.append(outcome.event)
                if gas > transaction.gas_limit:
                    log = f"out of gas in location: WriteFlat; gasWanted: {transaction.gas_limit}, gasUsed: {gas}"
                    raise TxRejected(11, "sdk", f"{log}: out of gas")
        except TxRejected as rejected:
            return paid, included(rejected.code, rejected.codespace, rejected.log, gas, ())
        return trial, included(0, "", "", gas, tuple(events))

    def _end_block(self, state: State) -> list[Event]:
        events = self._verify_proofs(state)
        events += settlement.settle(state, self.block_hash)
        for effective, params in list(self._scheduled):
            if state.height >= effective:
                state.live_shared_params = params
                self._scheduled.remove((effective, params))
        for address, supplier in list(state.suppliers.items()):
            state.suppliers[address] = pruned(state, supplier)
            unstake_end = supplier.unstake_session_end_height
            if not unstake_end:
                continue
            params = state.shared_params_at(unstake_end)
            unbonding = params.supplier_unbonding_period_sessions * params.num_blocks_per_session
            pending = any(c.supplier_operator_address == address for c in state.claims.values())
            if state.height >= unstake_end + max(unbonding, params.window_blocks + 1) and not pending:
                state.credit(supplier.owner_address, supplier.stake_upokt)
                del state.suppliers[address]
        return events

    def _verify_proofs(self, state: State) -> list[Event]:
        events = []
        for key, stored in sorted(state.proofs.items()):
            claim = state.claims[key]
            reason = failure_of(state, self.block_hash, claim, stored)
            status = settlement.INVALID if reason else settlement.VALIDATED
            state.claims[key] = replace(claim, proof_validation_status=status)
            events.append(
                Event(
                    "pocket.proof.EventProofValidityChecked",
                    {
                        "block_height": str(state.height),
                        "failure_reason": reason,
                        "service_id": claim.header.service_id,
                        "application_address": claim.header.application_address,
                        "session_end_block_height": str(claim.header.session_end_block_height),
                        "claim_proof_status_int": str(status),
                        "supplier_operator_address": claim.supplier_operator_address,
                    },
                )
            )
        state.proofs.clear()
        return events

    # Actions of governance, applications and suppliers between blocks, visible in the next block's state.

    def change_shared_params(self, params: SharedParams) -> None:
        """Schedule a session grid or windows from the next session start, anchored there."""
        state = self._state
        running = state.shared_params_at(state.height)
        effective = running.session_end(state.height) + 1
        anchored = replace(
            params,
            session_grid_anchor_height=effective,
            session_number_at_anchor=running.session_number(state.height) + 1,
        )
        history = state.shared_history or ((1, state.live_shared_params),)
        state.shared_history = (*(row for row in history if row[0] < effective), (effective, anchored))
        self._scheduled = [(effective, anchored)]

    def change_compute_units(self, service_id: str, units: int) -> None:
        """Set a service's price from the next session start."""
        state = self._state
        service = state.services[service_id]
        start = state.shared_params_at(state.height).session_end(state.height) + 1
        history = service.history or ((1, service.compute_units_per_relay),)
        state.services[service_id] = replace(
            service,
            compute_units_per_relay=units,
            history=(*(row for row in history if row[0] < start), (start, units)),
        )

    def unstake_supplier(self, address: str) -> None:
        """Unstake a supplier, which serves to the end of the running session."""
        self._state.suppliers[address] = unstaked(self._state, self._state.suppliers[address])

    def delegate(self, application: str, gateway: str) -> None:
        """Delegate to a gateway, effective immediately."""
        record = self._state.applications[application]
        if gateway not in record.gateway_addresses:
            self._state.applications[application] = replace(
                record, gateway_addresses=(*record.gateway_addresses, gateway)
            )

    def undelegate(self, application: str, gateway: str) -> None:
        """Undelegate from a gateway, which may sign to the end of the running session."""
        record = self._state.applications[application]
        end = self._state.shared_params_at(self.height).session_end(self.height)
        pending = {**record.pending_undelegations}
        pending[end] = (*pending.get(end, ()), gateway)
        self._state.applications[application] = replace(
            record,
            gateway_addresses=tuple(g for g in record.gateway_addresses if g != gateway),
            pending_undelegations=pending,
        )
