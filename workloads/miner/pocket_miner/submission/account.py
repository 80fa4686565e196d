"""Track the account that signs a supplier's transactions.

One of its nodes may state a wrong number.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.chain import convert
from pocket.chain.client import ChainClient
from pocket.chain.model import Account
from pocket.errors import ChainError
from pocket.protocol.pb import cosmos_auth_v1beta1_pb2 as auth_pb
from pocket_miner.storage.account_numbers import AccountNumbers

_LOG: FilteringBoundLogger = structlog.get_logger()
_METHOD: Final = "/cosmos.auth.v1beta1.Query/Account"


@dataclass(slots=True)
class SupplierAccount:
    """The account of one supplier.

    It is queried once until it is forgotten or its number is refuted.
    """

    chain: ChainClient
    supplier: str
    numbers: AccountNumbers | None = None
    """Numbers with which transactions were accepted, for a restart while no node answers."""
    _known: Account | None = None
    _refuted: dict[int, None] = field(default_factory=dict)
    """Numbers with which a transaction was rejected, the latest last."""
    _saved: int | None = None

    async def get(self) -> Account:
        """Return the account. Raises ChainError."""
        if self._known is None:
            try:
                self._known = await self._ask()
            except ChainError as error:
                number = None
                if self.numbers is not None:
                    number = await asyncio.to_thread(self.numbers.get, self.supplier)
                if number is None:
                    raise
                _LOG.warning("no node states the account, using its last number", number=number, error=error)
                return Account(self.supplier, number, 0, None)
        return self._known

    async def accepted(self) -> None:
        """Remember the number, with which a transaction was accepted."""
        if self._known is not None and self.numbers is not None and self._saved != self._known.number:
            self._saved = self._known.number
            await asyncio.to_thread(self.numbers.put, self.supplier, self._saved)

    def forget(self) -> None:
        """Query the account again before the next transaction."""
        self._known = None

    async def refute(self) -> None:
        """Discard the account, here and in the caches.

        Nodes rejected a transaction with its number.
        """
        if self._known is not None:
            self._refuted.pop(self._known.number, None)
            self._refuted[self._known.number] = None
        self._known = None
        await self.chain.adopt(_METHOD, self._request, None)

    @property
    def _request(self) -> auth_pb.QueryAccountRequest:
        return auth_pb.QueryAccountRequest(address=self.supplier)

    async def _ask(self) -> Account:
        """Query the account numbers that nodes state.

        The most frequent ones come first, refuted ones last.
        """
        if not self._refuted:
            return await self.chain.account(self.supplier)
        by_node = await self.chain.decoded_by_node(
            _METHOD, self._request, auth_pb.QueryAccountResponse,
            lambda row: convert.account(row.account.type_url, row.account.value),
        )  # fmt: skip
        votes = Counter(account.number for account in by_node.values())
        order = {number: rank for rank, number in enumerate(self._refuted, start=1)}
        rows = sorted(by_node.values(), key=lambda account: (order.get(account.number, 0), -votes[account.number]))
        return rows[0] if rows else await self.chain.account(self.supplier)
