"""Read a supplier's stake from chain nodes, sign plans, and follow transactions."""

import enum
import hashlib
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from google.protobuf.message import DecodeError

from pocket.chain import convert
from pocket.chain.client import ChainClient
from pocket.chain.comet import CometClient
from pocket.chain.model import StakedSupplier, StakingParams
from pocket.errors import ChainUnavailable, NotFound, PocketError
from pocket.protocol.crypto.addresses import address_of
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket.protocol.pb import pocket_supplier_pb2 as supplier_pb
from pocket.protocol.sessions.windows import SharedParams
from pocket.protocol.transactions.build import (
    SignedTransaction,
    Timestamp,
    TransactionPlan,
    adjusted_gas,
    sign_transaction,
)
from pocket.staking.stake_model import StakePlan, StakeSnapshot

VALID_SECONDS: Final = 300
"""A transaction may be included until so long after the block time that it was signed at."""
SETTLED_SECONDS: Final = 30
"""Past the timeout, so much block time rules the inclusion out on every node."""
_KNOWN_ALREADY: Final = ("sdk", 19)
"""Codespace and code with which a node reports that it has the same bytes."""
_GAS_RESERVE: Final = Decimal("1.3")
_NANOSECONDS: Final = 1_000_000_000


class TransactionWouldFail(PocketError):
    """The chain refuses the transaction, or it needs more gas than planned."""


class SentOutcome(enum.Enum):
    """The result of a signed transaction."""

    WAITING = "Sent"
    INCLUDED = "Included"
    FAILED = "Failed"
    EXPIRED = "Expired"


@dataclass(frozen=True, slots=True)
class SentState:
    """The outcome, the block that shows it, and the chain's text of a failure."""

    outcome: SentOutcome
    height: int = 0
    log: str = ""


class StakeChain:
    """The questions and the one broadcast that staking needs."""

    def __init__(self, client: ChainClient, comet: CometClient, chain_id: str) -> None:
        self._client = client
        self._comet = comet
        self._chain_id = chain_id
        self._params: tuple[int, StakingParams, SharedParams] | None = None

    async def _params_at(self, height: int) -> tuple[StakingParams, SharedParams]:
        """Return the parameters, read once for all suppliers of a block."""
        if self._params is None or self._params[0] != height:
            self._params = height, await self._client.staking_params(), await self._client.shared_params(height)
        return self._params[1:]

    async def snapshot(self, operator: str, signer: str, since: int = 0) -> StakeSnapshot:
        """Return what a plan needs, as of block `since` or a later one.

        Raises ChainError, also where nodes disagree about the supplier or none has the block.
        """
        block = await self._comet.block()
        if block.height < since:
            raise ChainUnavailable(f"the chain node is at block {block.height}, and the stake is needed as of {since}")
        params, shared = await self._params_at(block.height)
        return StakeSnapshot(
            chain_id=self._chain_id,
            height=block.height,
            supplier=await self._supplier(operator, since),
            params=params,
            shared=shared,
            balance_upokt=await self._client.balance_upokt(signer),
        )

    async def _supplier(self, operator: str, since: int) -> StakedSupplier | None:
        """Return the record of every node that knows the block `since`.

        The state of such a node is of that block or later. Raises ChainUnavailable where they disagree: a change
        reaches nodes at different moments.
        """
        request = supplier_pb.QueryGetSupplierRequest(operator_address=operator)
        every = await self._client.ask_every_node("/pocket.supplier.Query/Supplier", request)
        answers = {name: answer for name, answer in every.items() if answer.height >= since}
        if every and not answers:
            heights = ", ".join(f"{name}: {answer.height or 'unknown'}" for name, answer in every.items())
            raise ChainUnavailable(
                f"no chain node returned the stake of {operator} as of block {since} or later (heights: {heights})"
            )
        records = set[StakedSupplier | None]()
        for answer in answers.values():
            if isinstance(answer.error, NotFound):
                records.add(None)
            elif answer.error is None:
                try:
                    message = supplier_pb.QueryGetSupplierResponse.FromString(answer.raw)
                except DecodeError:
                    continue
                records.add(convert.supplier(message.supplier))
        if not records:
            causes = "; ".join(str(answer.error) for answer in answers.values())
            raise ChainUnavailable(f"no chain node returned the stake of {operator} ({causes or 'none may be asked'})")
        if len({_comparable(record) for record in records}) > 1:
            raise ChainUnavailable(f"chain nodes disagree about the stake of {operator}: try again")
        return max(records, key=lambda record: len(record.service_ids) if record else 0)

    async def sign(self, plan: StakePlan, key: PrivateKey, lane: int) -> tuple[SignedTransaction, Timestamp]:
        """Simulate a plan and sign it, without sending anything.

        lane: nanoseconds from `lane_of`, which transactions of one key in one block must not share.

        Returns the transaction and its timeout.

        Raises ChainError, and TransactionWouldFail where the chain refuses the messages.
        """
        signer = address_of(key.public_key)
        account = await self._client.account(signer)
        now = (await self._comet.block()).time
        timeout = Timestamp.of_nanoseconds(now.nanoseconds + VALID_SECONDS * _NANOSECONDS + lane)
        transaction = TransactionPlan(
            messages=plan.messages,
            chain_id=self._chain_id,
            account_number=account.number,
            gas_limit=plan.gas_limit,
            fee_upokt=plan.cost.transaction_fee_upokt,
            timeout=timeout,
            memo="",
        )
        signed = sign_transaction(transaction, key)
        await self.check(signed.raw, plan.gas_limit)
        return signed, timeout

    async def check(self, raw: bytes, gas_limit: int) -> None:
        """Simulate a transaction. Raises TransactionWouldFail, ChainUnavailable."""
        try:
            gas = await self._client.simulate(raw)
        except ChainUnavailable:
            raise
        except PocketError as error:
            raise TransactionWouldFail(f"the chain would refuse the transaction: {error}") from error
        if adjusted_gas(gas, _GAS_RESERVE) > gas_limit:
            raise TransactionWouldFail(f"it needs {gas} gas, and {gas_limit} leaves too little reserve")

    async def send(self, raw: bytes) -> SentState:
        """Broadcast signed bytes, which is harmless to repeat. Raises ChainUnavailable."""
        result = await self._client.broadcast(raw)
        known = result.code == 0 or (result.codespace, result.code) == _KNOWN_ALREADY
        log = "" if known else f"{result.codespace} {result.code}: {result.log}"
        return SentState(SentOutcome.WAITING, log=log)

    async def outcome(self, tx_hash: str, expires_at: Timestamp | None) -> SentState:
        """Return what became of a transaction. Raises ChainUnavailable.

        Without an expiry a transaction that is not found is never given up.
        """
        block = await self._comet.block()
        try:
            result = await self._client.transaction(tx_hash)
        except NotFound:
            settled = block.time.nanoseconds - SETTLED_SECONDS * _NANOSECONDS
            if expires_at is not None and settled > expires_at.nanoseconds:
                return SentState(SentOutcome.EXPIRED, block.height)
            return SentState(SentOutcome.WAITING)
        if result.code:
            return SentState(SentOutcome.FAILED, result.height, f"{result.codespace} {result.code}: {result.log}")
        return SentState(SentOutcome.INCLUDED, result.height)

    async def unsigned(self, plan: StakePlan, signer: str) -> TransactionPlan:
        """Return the ordered transaction for an offline signer, without a timeout.

        Raises ChainError.
        """
        account = await self._client.account(signer)
        return TransactionPlan(
            messages=plan.messages,
            chain_id=self._chain_id,
            account_number=account.number,
            gas_limit=plan.gas_limit,
            fee_upokt=plan.cost.transaction_fee_upokt,
            timeout=None,
            memo="",
            sequence=account.sequence,
            unordered=False,
        )


def lane_of(operator: str, last_hash: str) -> int:
    """Return the nanoseconds that tell timeouts of one key's transactions apart.

    They are less than one second. Signer and timeout are the nonce of an unordered transaction. Suppliers that share a
    paying key have different lanes, and so have a supplier's transactions one after the other.
    """
    digest = hashlib.sha256(f"{operator} {last_hash}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % _NANOSECONDS


def _comparable(record: StakedSupplier | None) -> StakedSupplier | None:
    """Without what depends on the height of the node that answers."""
    return None if record is None else replace(record, service_ids=frozenset())
