"""Build the miners of single suppliers.

They come from the keys folder, the volume and the chain.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from cachetools import FIFOCache
from redis.asyncio import Redis

from pocket.api.workload import MinerConfig
from pocket.chain_cache.cached_client import CachedChain
from pocket.errors import PocketError
from pocket.keys.keyring import Keyring
from pocket.keys.remote_signer import RemoteSigner, remote_signer
from pocket.platform import Platform
from pocket.protocol.transactions.build import GasPrice
from pocket.protocol.transactions.timeouts import UnorderedNonceAllocator
from pocket.redis_store.node_addresses import Address
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.seals import SealStore
from pocket.redis_store.store_errors import RedisUnavailable
from pocket.redis_store.stream_reader import StreamReader
from pocket.runtime.public_urls import PublicUrlChecker
from pocket_miner import miner_metrics
from pocket_miner.ingest.consume_rounds import ConsumeRounds
from pocket_miner.ingest.peers import Peers
from pocket_miner.ingest.relay_consumer import RelayConsumer
from pocket_miner.ingest.session_copies import SessionCopies
from pocket_miner.sessions.start_params import StartParams
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.settlement.event_reader import SettlementReader
from pocket_miner.status.report import Reports
from pocket_miner.storage.account_numbers import AccountNumbers
from pocket_miner.storage.audit import Audit
from pocket_miner.storage.dead_letters import DeadLetters
from pocket_miner.storage.relay_store import RelayStore
from pocket_miner.storage.trie_pool import Tries
from pocket_miner.submission.claims import ClaimSubmitter
from pocket_miner.submission.fees import FeeTracker
from pocket_miner.submission.proofs import ProofSubmitter, SignedProofs
from pocket_miner.submission.seeds import HashSource, SeedHashes
from pocket_miner.submission.sender import Sender
from pocket_miner.suppliers.standby import Standby
from pocket_miner.suppliers.supplier_miner import SupplierMiner

_SIGNED_PROOFS = 1024  # groups of a supplier and session end, the newest ones
_COLLECT_SECONDS = 0.005  # suppliers whose timers fire at one moment share a round


@dataclass(slots=True)
class SupplierFactory:
    """Builds supplier miners from the loaded keys and shared parts."""

    config: MinerConfig
    redis: "Redis"
    keys: RedisKeys
    chain: CachedChain
    blocks: HashSource
    settlements: SettlementReader
    relay_store: RelayStore
    audit: Audit
    pool: Tries
    redis_settled: Callable[[int], Awaitable[bool]]
    reports: Reports
    peers: Peers
    endpoints: PublicUrlChecker
    dead_letters: DeadLetters
    redis_milliseconds: Callable[[], float | None] = lambda: None
    redis_history_of: Callable[[Address | None], str] = lambda primary: ""
    """Returns the history of a primary of Redis."""
    latest_height: Callable[[], int] = lambda: 0
    volume_full: Callable[[], bool] = lambda: False
    measured_block_seconds: Callable[[], float] = lambda: 0.0
    platform: Platform = field(default_factory=Platform)
    signer: RemoteSigner | None = field(init=False)
    keyring: Keyring = field(init=False)
    _fees: FeeTracker = field(init=False)
    _seeds: SeedHashes = field(init=False)
    _start_params: StartParams = field(init=False)
    _rounds: ConsumeRounds = field(init=False)
    _numbers: AccountNumbers = field(init=False)
    _offset: int = field(init=False)
    """Separates the transactions of processes without a Lease, which have no epoch, from each other's."""
    _signed_proofs: SignedProofs = field(default_factory=lambda: FIFOCache(_SIGNED_PROOFS))
    _copying: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        platform = self.platform
        self.signer = remote_signer(self.config.signer, miner_metrics.observe_signature, platform.rng, platform.clock)
        self.keyring = Keyring(self.config.keys_dir, platform.environment, platform.wall_nanoseconds, self.signer)
        self._seeds = SeedHashes(self.blocks, self.chain)
        self._start_params = StartParams(self.chain)
        self._numbers = AccountNumbers(self.config.data_dir / "accounts.json")
        self._offset = platform.rng.randrange(1, 1000)
        self._rounds = ConsumeRounds(self.redis, self.relay_store, _COLLECT_SECONDS)
        self._fees = FeeTracker(
            GasPrice.parse(self.config.chain.gas_price), self.audit, self.platform.clock
        )  # fmt: skip

    @property
    def addresses(self) -> list[str]:
        """Return the operator addresses of the loaded keys, sorted."""
        return self.keyring.addresses

    def observe_signer(self) -> None:
        """Update the metrics of the remote signer."""
        miner_metrics.SIGNER_DOWN.set(self.keyring.signer_answers is False)
        miner_metrics.SIGNER_MISSING.set(len(self.keyring.unlisted()))

    async def highest_fence(self, addresses: Iterable[str]) -> int:
        """Return the highest epoch that Redis holds for these suppliers, 0 without any.

        Raises the errors of Redis.
        """
        names = [self.keys.fence(address) for address in addresses]
        if not names:
            return 0
        async with self.redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.get(name)
            values = [value or b"0" for value in await pipe.execute()]
        # A damaged fence fails its own supplier's writes, and must not keep the shard from being taken.
        return max((int(value) for value in values if value.isdigit()), default=0)

    async def refresh_funds(self, addresses: Iterable[str]) -> None:
        """Update balances (upokt) and the number of penalties that each stake can pay.

        A failed query leaves the previous values unchanged.
        """
        try:
            penalty = (await self.chain.direct.proof_params()).proof_missing_penalty_upokt
            least = await self.chain.supplier_min_stake_upokt()
        except PocketError:
            return
        for address in addresses:
            try:
                balance = await self.chain.balance_upokt(address)
                stake = (await self.chain.direct.supplier(address)).stake_upokt
                account = await self.chain.direct.account(address)
            except PocketError:
                continue  # a supplier that is not staked needs no funds
            self.reports.of(address).record_funds(balance, public_key=account.public_key is not None)
            miner_metrics.BALANCE.labels(address).set(balance)
            if penalty:
                miner_metrics.RUNWAY.labels(address).set(max(0, stake - least) // penalty)

    async def check_public_urls(self, addresses: Iterable[str]) -> bool:
        """Check the public URLs in these suppliers' stakes.

        Returns True if any has a problem.
        """
        reports = {address: self.reports.of(address) for address in addresses}
        await self.endpoints.probe(url for report in reports.values() for url in report.urls)
        for address, report in reports.items():
            report.endpoint_problems = self.endpoints.problems(report.urls)
            miner_metrics.ENDPOINTS.labels(address).set(len(report.endpoint_problems))
        return any(report.endpoint_problems for report in reports.values())

    def _consumer(self, address: str, sessions: dict[str, TrackedSession], *, owner: bool) -> RelayConsumer:
        reader = StreamReader(self.redis, self.keys, address)
        return RelayConsumer(
            reader, self.relay_store, self.chain, sessions, owner=owner, server_milliseconds=self.redis_milliseconds,
            history_id=lambda: self.redis_history_of(reader.primary),
            dead_letters=self.dead_letters if owner else None, volume_full=self.volume_full, rounds=self._rounds,
            start_params=self._start_params,
        )  # fmt: skip

    def standby(self, address: str) -> Standby:
        """Build the standby of a supplier that another miner owns."""
        sessions: dict[str, TrackedSession] = {}
        consumer = self._consumer(address, sessions, owner=False)
        return Standby(StreamReader(self.redis, self.keys, address), consumer, self.relay_store, self.audit, sessions)

    def detached(self, address: str) -> SupplierMiner:
        """Build a miner that needs neither Redis nor a Lease.

        It seals nothing: it only claims and proves what is sealed on the volume. The supplier's key must be loaded.
        """

        async def owner_unknown() -> None:
            raise RedisUnavailable("the owner of the supplier is unknown while Redis or the Lease cannot be read")

        miner = self.miner(address, 0, owner_unknown)
        miner.detached = True
        return miner

    def miner(self, address: str, epoch: int, confirm: Callable[[], Awaitable[None]]) -> SupplierMiner:
        """Build the miner of an owned supplier whose key is loaded.

        `epoch` is the fencing token of its shard. `confirm` raises StaleEpoch once another miner owns the supplier.
        """
        config = self.config
        sessions: dict[str, TrackedSession] = {}
        sender = Sender(
            self.chain,
            address,
            self.keyring.by_address()[address],
            chain_id=config.chain.id,
            gas_price=self._fees.gas_price,
            gas_adjustment=config.chain.gas_adjustment,
            block_seconds=config.chain.block_seconds,
            nonces=UnorderedNonceAllocator(offset=epoch or self._offset),
            clock=self.platform.clock,
            numbers=self._numbers,
        )
        sender.measured_block_seconds = self.measured_block_seconds
        store = SealStore(self.redis, self.keys, address, epoch, self.platform.unique)
        consumer = self._consumer(address, sessions, owner=True)
        largest = config.chain.max_transaction_bytes
        copies = SessionCopies(consumer, self.relay_store, self.peers, self._copying)
        claims = ClaimSubmitter(
            address, store, self.audit, self.relay_store, self.pool, sender, consumer, self._fees, largest,
            self.latest_height, copies, sessions,
        )  # fmt: skip
        proofs = ProofSubmitter(
            address, self.chain, self.blocks, self.relay_store, self.pool, sender, self._fees, store, largest,
            self.latest_height, self._seeds, copies, self._signed_proofs,
        )  # fmt: skip
        return SupplierMiner(
            address, self.chain, self.settlements, store, self.audit, self.relay_store, consumer, claims, proofs,
            sessions, config.seal_after_blocks, self.redis_settled, self.reports.of(address), self.peers, confirm,
        )  # fmt: skip
