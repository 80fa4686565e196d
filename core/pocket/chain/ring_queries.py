"""Read the rings of sessions from the chain."""

from typing import Protocol

from pocket.chain.model import Account, Application
from pocket.errors import NotFound
from pocket.protocol.rings import PLACEHOLDER_ADDRESS, ring_addresses, ring_keys


class MemberQueries(Protocol):
    """The queries of a chain client that a ring needs."""

    async def application(self, address: str) -> Application:
        """Return an application."""

    async def account(self, address: str) -> Account:
        """Return an account."""


async def query_ring(chain: MemberQueries, application: str, session_end: int) -> tuple[bytes, ...]:
    """Return the ring of an application in its sessions that end at a height.

    It has the public keys that may sign. Raises ChainError, and NotFound for a member without a public key on chain.
    """
    addresses = ring_addresses((await chain.application(application)).delegations, session_end)
    keys: dict[str, bytes] = {}
    for address in set(addresses) - {PLACEHOLDER_ADDRESS}:
        account = await chain.account(address)
        if account.public_key is None:
            raise NotFound(f"{address} has no public key on chain: it must sign a transaction once")
        keys[address] = account.public_key
    return ring_keys(addresses, keys)
