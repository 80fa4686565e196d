"""A chain node that takes transactions of claims and proofs, for tests of what is sent."""

from dataclasses import dataclass, field

from pocket.chain.model import Account, TransactionResult
from pocket.errors import NotFound
from pocket.protocol.transactions.build import GasPrice
from pocket.protocol.transactions.decode import decode_tx
from pocket.protocol.transactions.timeouts import UnorderedNonceAllocator
from pocket_miner.submission.sender import Sender
from world import address, key

PRICE = GasPrice.parse("0.001upokt")
REFUSED = 1109, "proof"
"""Code and codespace of a claim or proof that the chain rejects."""


@dataclass
class TransactionNode:
    """Takes transactions, except those with claims or proofs of `refused` sessions, and shows these claims.

    `results` are the codes of transactions in blocks, by hash, and `block_height` is that of all of them.
    """

    results: dict = field(default_factory=dict)
    claims: list = field(default_factory=list)
    refused: set = field(default_factory=set)
    sent: list = field(default_factory=list)
    block_height: int = 14
    gas: int = 100_000

    async def account(self, account_address):
        return Account(account_address, 7, 0, None)

    async def simulate(self, raw):
        return self.gas

    def rejects(self, raw):
        """Return the code and codespace of a broadcast."""
        transaction = decode_tx(raw)
        return REFUSED if self.refused.intersection([*transaction.claims, *transaction.proofs]) else (0, "")

    async def broadcast(self, raw):
        self.sent.append(raw)
        code, codespace = self.rejects(raw)
        return TransactionResult(decode_tx(raw).tx_hash, code, codespace, "", 0)

    async def transaction(self, tx_hash):
        if tx_hash not in self.results:
            raise NotFound("not indexed")
        return TransactionResult(tx_hash, self.results[tx_hash], "proof", "refused", self.block_height)

    async def claims_by_node(self, supplier, height):
        return {"node": self.claims}


def sender_to(chain, signing_key=None, *, offset=0):
    """Return alice's sender to a chain, with a nonce offset of its process."""
    return Sender(
        chain, address("alice"), signing_key or key("alice"), chain_id="pocket", gas_price=PRICE, gas_adjustment=1.5,
        block_seconds=1.0, nonces=UnorderedNonceAllocator(offset=offset),
    )  # fmt: skip
