"""Signing and sending one supplier's transactions; every refusal is classified, none is fatal to others."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar

from shannon.chain.client import ChainClient
from shannon.chain.model import Account, Block, TransactionResult
from shannon.crypto.ecdsa import PrivateKey
from shannon.errors import ChainRefusal, PocketError
from shannon.transactions.build import (
    GasPrice,
    Message,
    SignedTransaction,
    Timestamp,
    TransactionPlan,
    adjusted_gas,
    sign_transaction,
)
from shannon.transactions.refusals import Refusal, classify, failed_message_index
from shannon.transactions.sizes import packs
from shannon.transactions.timeouts import NonceClock, timeout_duration_seconds

T = TypeVar("T")


class SendError(PocketError):
    """A transaction was not accepted; `refusal` says what that means, `index` which message is to blame."""

    def __init__(self, refusal: Refusal, message: str, index: int | None = None) -> None:
        super().__init__(message)
        self.refusal = refusal
        self.index = index


@dataclass(frozen=True, slots=True)
class Prepared:
    """A signed transaction with its timeout."""

    signed: SignedTransaction
    timeout: Timestamp


@dataclass(frozen=True, slots=True)
class Sifted:
    """A transaction of all messages that the chain takes, None where there are none, and the refusals of the others.

    refused: by position among the messages that were given.
    """

    prepared: Prepared | None
    refused: Mapping[int, SendError]


_OF_ONE_MESSAGE = (Refusal.POISON, Refusal.NOT_REQUIRED, Refusal.RETRY)
"""Where the chain names the message. What it says may be new: a later chain has other words."""


class Sender:
    """Transactions of one supplier."""

    def __init__(
        self,
        chain: ChainClient,
        supplier: str,
        key: PrivateKey,
        *,
        chain_id: str,
        gas_price: GasPrice,
        gas_adjustment: float,
        block_seconds: float,
        nonces: NonceClock,
    ) -> None:
        self._chain = chain
        self._supplier = supplier
        self._key = key
        self._chain_id = chain_id
        self._gas_price = gas_price
        self._gas_adjustment = Decimal(str(gas_adjustment))
        self._block_seconds = block_seconds
        self._nonces = nonces
        self._account: Account | None = None

    @property
    def chain(self) -> ChainClient:
        """The chain that transactions are sent to."""
        return self._chain

    def forget_account(self) -> None:
        """Asks for the account again: its number or key may have been wrong."""
        self._account = None

    async def prepare(self, messages: Sequence[Message], block: Block, close_height: int) -> Prepared:
        """Simulates and signs; raises SendError naming the message that can never succeed."""
        if self._account is None:
            self._account = await self._chain.account(self._supplier)
        remaining = close_height - block.height
        timeout = self._nonces.next_timeout(
            self._supplier, block.time, timeout_duration_seconds(remaining, self._block_seconds)
        )
        trial = sign_transaction(self._plan(messages, timeout, 0, None), self._key)
        try:
            used = await self._chain.simulate(trial.raw)
        except ChainRefusal as refusal:
            text = str(refusal)
            raise SendError(classify(1, "undefined", text), text, failed_message_index(text)) from refusal
        gas = adjusted_gas(used, self._gas_adjustment)
        fee = self._gas_price.fee_upokt(gas)
        return Prepared(sign_transaction(self._plan(messages, timeout, gas, fee), self._key), timeout)

    async def sift(self, messages: Sequence[Message], block: Block, close_height: int) -> Sifted:
        """As `prepare`; a message that the chain refuses by name does not take the others with it. Raises SendError."""
        left, refused = list(range(len(messages))), {}
        while left:
            try:
                prepared = await self.prepare([messages[i] for i in left], block, close_height)
            except SendError as error:
                if error.refusal not in _OF_ONE_MESSAGE or error.index is None or error.index >= len(left):
                    raise
                refused[left.pop(error.index)] = error
                continue
            return Sifted(prepared, refused)
        return Sifted(None, refused)

    def _plan(self, messages: Sequence[Message], timeout: Timestamp, gas: int, fee: int | None) -> TransactionPlan:
        number = self._account.number if self._account else 0
        return TransactionPlan(tuple(messages), self._chain_id, number, gas, fee, timeout)

    async def broadcast(self, raw: bytes) -> TransactionResult:
        """Mempool acceptance; raises SendError. Bytes that are known already count as accepted."""
        result = await self._chain.broadcast(raw)
        if result.code == 0:
            return result
        refusal = classify(result.code, result.codespace, result.log)
        if refusal is Refusal.ACCEPTED_BEFORE:
            return result
        if refusal is Refusal.ACCOUNT:
            self.forget_account()
        raise SendError(
            refusal, f"code {result.code} ({result.codespace}): {result.log[:300]}", failed_message_index(result.log)
        )


async def in_packs(
    rows: Sequence[T],
    message_of: Callable[[T], Message],
    max_transaction_bytes: int,
    send: Callable[[list[T]], Awaitable[None]],
) -> None:
    """Sends rows in as many transactions as their size takes, and what a node finds too large in halves.

    One that is refused does not take the others with it: raises the first SendError when all have been tried.
    """
    waiting = packs(rows, message_of, max_transaction_bytes)
    failure: SendError | None = None
    while waiting:
        pack = waiting.pop(0)
        try:
            await send(pack)
        except SendError as error:
            if error.refusal is Refusal.TOO_LARGE and len(pack) > 1:
                half = len(pack) // 2
                waiting[:0] = [pack[:half], pack[half:]]
                continue
            failure = failure or error
    if failure is not None:
        raise failure
