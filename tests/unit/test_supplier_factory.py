"""How the parts of a supplier are put together: timestamps of its own, and an owner's tasks for owners alone."""

import random
import time

import pytest

from direct import DirectChain, DirectComet, DirectSettlements
from pocket.api.workload import MinerConfig
from pocket.platform import Platform
from pocket.protocol.transactions.build import Timestamp
from pocket.redis_store.redis_keys import RedisKeys
from pocket.runtime.public_urls import PublicUrlChecker
from pocket_localnet.local_chain import LocalChain
from pocket_miner.status.report import Reports
from pocket_miner.storage.audit import Audit
from pocket_miner.storage.dead_letters import DeadLetters
from pocket_miner.suppliers.factory import SupplierFactory
from world import World, address, key

BLOCK_TIME = Timestamp.of_nanoseconds(10**18)


@pytest.fixture
def factory(tmp_path):
    """Return a function that makes the factory of a process with these random numbers."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "alice").write_text(f"{key('alice').scalar:064x}")
    config = MinerConfig.model_validate(
        {
            "name": "main", "namespace": "ns", "prefix": "many", "redisUrl": "redis://r", "keysDir": tmp_path / "keys",
            "dataDir": tmp_path, "chain": {"nodes": [{"grpc": "grpc://n:1", "rpc": "http://n:2"}]},
        }
    )  # fmt: skip
    chain, audit = LocalChain(World().genesis()), Audit(tmp_path / "audit.sqlite")
    comet = DirectComet(chain)

    def of(seed):
        suppliers = SupplierFactory(
            config, None, RedisKeys("many"), DirectChain(chain), comet, DirectSettlements(comet), None, audit, None,
            None, Reports(audit), None, PublicUrlChecker(time.time), DeadLetters(tmp_path / "refused.sqlite"),
            platform=Platform(rng=random.Random(seed)),
        )  # fmt: skip
        suppliers.keyring.reload()
        return suppliers

    yield of
    audit.close()


@pytest.fixture
def timeouts(factory):
    """Return the first timeouts of a process with these random numbers: without a Lease, and as the owner."""

    def of(seed, epoch):
        suppliers = factory(seed)
        owner = suppliers.miner(address("alice"), epoch, None) if epoch else suppliers.detached(address("alice"))
        return [
            owner.claims.sender._nonces.next_timeout(address("alice"), BLOCK_TIME, 120.0).nanoseconds for _ in range(50)
        ]

    return of


def test_processes_without_a_lease_and_owners_sign_under_timestamps_of_their_own(timeouts):
    rows = [timeouts(1, 0), timeouts(2, 0), timeouts(1, 1), timeouts(2, 2)]
    assert len({nanoseconds for row in rows for nanoseconds in row}) == 200


def test_only_the_owner_of_a_supplier_keeps_the_entries_that_it_refuses(factory):
    suppliers = factory(1)
    followed, owned = suppliers.standby(address("alice")), suppliers.miner(address("alice"), 1, None)
    kept = [part.consumer._validator._dead_letters for part in (followed, owned)]
    assert kept == [None, suppliers.dead_letters]
    assert [part.consumer._owner for part in (followed, owned)] == [False, True]
