"""The suppliers of one miner process: made from the keys folder, added and retired while it runs."""

import logging
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ledger.chain_cache import CachedChain
from ledger.keys import Keys
from ledger.seals import SealStore
from ledger.tail import Tail
from miner.audit import Audit
from miner.claims import ClaimDesk
from miner.mirror import Mirror
from miner.proofs import ProofDesk
from miner.report import Reports
from miner.sender import Sender
from miner.sessions import TrackedSession
from miner.supplier_miner import SupplierMiner
from miner.tailing import Tailer
from miner.trie_pool import TriePool
from pocket_api.workload import MinerConfig
from shannon.chain.comet import CometClient
from shannon.crypto.ecdsa import PrivateKey
from shannon.errors import ConfigurationError, NotFound, PocketError
from shannon.keys.loading import KeySet, load_supplier_keys
from shannon.transactions.build import GasPrice
from shannon.transactions.timeouts import NonceClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

_LOG = logging.getLogger("miner.suppliers")


@dataclass(slots=True)
class Suppliers:
    """`mining` holds the owned suppliers by address; the keys folder says which they should be."""

    config: MinerConfig
    redis: "Redis"
    chain: CachedChain
    comet: CometClient
    mirror: Mirror
    audit: Audit
    pool: TriePool
    redis_settled: "Callable[[], bool]"
    reports: Reports
    mining: dict[str, SupplierMiner] = field(default_factory=dict)
    _loaded: KeySet = field(default_factory=lambda: KeySet({}))
    _nonces: NonceClock | None = None

    async def refresh(self) -> list[SupplierMiner]:
        """Suppliers whose keys are new; those whose keys are gone retire once their sessions are finished.

        A folder that cannot be read changes nothing: the last good set stays. Raises what Redis raises.
        """
        try:
            loaded = load_supplier_keys(self.config.keys_dir, os.environ)
        except ConfigurationError as error:
            _LOG.warning("keys: %s", error)
            return []
        if loaded.digest != self._loaded.digest or not self._loaded.keys:
            for problem in loaded.problems:
                _LOG.warning("keys: %s", problem)
        added = [await self._add(address, key) for address, key in loaded.keys.items() if address not in self.mining]
        for address, supplier in list(self.mining.items()):
            supplier.retiring = address not in loaded.keys
            if supplier.retiring and not supplier.sessions:
                del self.mining[address]
                _LOG.info("retired", extra={"fields": {"supplier": address}})
        if added:
            _LOG.info("mining for %d suppliers", len(self.mining), extra={"fields": {"keys": loaded.digest[:16]}})
        self._loaded = loaded
        return added

    @property
    def digest(self) -> str:
        """Of the public keys that are loaded; empty without any."""
        return self._loaded.digest if self._loaded.keys else ""

    @property
    def addresses(self) -> list[str]:
        """Addresses of the loaded keys."""
        return sorted(str(address) for address in self._loaded.keys)

    async def look_at_stakes(self) -> None:
        """Asks the chain, through the caches, what each supplier has staked; unanswered questions change nothing."""
        for address in self.addresses:
            try:
                self.reports.of(address).knows(await self.chain.supplier(address))
            except NotFound:
                self.reports.of(address).knows(None)
            except PocketError:
                continue

    async def _add(self, address: str, key: PrivateKey) -> SupplierMiner:
        config, keys = self.config, Keys(self.config.prefix)
        epoch = self.audit.next_epoch(int(await self.redis.get(keys.fence(address)) or 0))
        if self._nonces is None:
            self._nonces = NonceClock(lane=epoch)
        gas_price = GasPrice.parse(config.chain.gas_price)
        sessions: dict[str, TrackedSession] = {}
        sender = Sender(
            self.chain,
            address,
            key,
            chain_id=config.chain.id,
            gas_price=gas_price,
            gas_adjustment=config.chain.gas_adjustment,
            block_seconds=config.chain.block_seconds,
            nonces=self._nonces,
        )
        store = SealStore(self.redis, keys, address, epoch)
        tailer = Tailer(Tail(self.redis, keys, address), self.mirror, self.chain, sessions)
        claims = ClaimDesk(address, store, self.audit, self.mirror, self.pool, sender, tailer, gas_price)
        proofs = ProofDesk(address, self.chain, self.mirror, self.pool, sender)
        self.mining[address] = SupplierMiner(
            address, self.chain, self.comet, store, self.audit, self.mirror, tailer, claims, proofs, sessions,
            config.seal_after_blocks, self.redis_settled, self.reports.of(address),
        )  # fmt: skip
        return self.mining[address]
