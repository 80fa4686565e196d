"""A miner whose volume takes no writes any more, after an error of its file system for example."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from mine import mine
from one_miner import a_miner, codes, until
from pocket.errors import ConfigurationError
from pocket.protocol.claims.proof_requirement import VALIDATED
from pocket_miner.storage.database import open_to_read, open_to_write
from pocket_miner.storage.volume import lock
from read_only import read_only

pytestmark = pytest.mark.redis


async def something_is_sent(chain):
    async with asyncio.timeout(30):
        while True:
            if chain._mempool:
                return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("claimed", [False, True], ids=["claim lost", "claimed"])
async def test_what_is_sealed_on_a_volume_that_takes_no_writes_is_claimed_and_proven(redis, tmp_path, claimed):
    data = tmp_path / "data"
    async with mine(redis, data) as alice:
        header = alice.header()
        await alice.record(alice.relays(header, 3))
        alice.chain.faults.evict = 0 if claimed else 100
        await alice.to(14)
        assert (alice.claim(header) is not None) is claimed
        alice.chain.faults.evict = 0
        alice.close()
        stake = alice.chain.state.suppliers[alice.supplier].stake_upokt
        nowhere = "redis://127.0.0.1:1/0"
        node = {"grpc": alice.localnet.grpc_url, "rpc": alice.localnet.rpc_url}
        with read_only(data):
            # Threads that were there before may still write.
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())
            async with a_miner(tmp_path, nowhere, node) as (ask, task):
                _, health = await until(ask, "/health", lambda status, body: body["phase"] == "read-only")
                assert health["status"] == "ok"
                status, ready = await ask("/ready")
                assert (status, codes(ready)) == (503, ["VolumeReadOnly"])
                assert "is read-only" in (await ask("/report"))[1]["volume"]
                while alice.chain.height < 17:
                    if not claimed or alice.chain.height == 16:
                        await something_is_sent(alice.chain)
                    alice.localnet.step()
                    claimed = True
                assert alice.claim(header).proof_validation_status == VALIDATED
                assert not task.done()
        while alice.chain.height < 21:
            alice.localnet.step()
        assert alice.chain.state.suppliers[alice.supplier].stake_upokt == stake


def test_a_folder_that_was_never_written_to_and_takes_no_writes_is_refused(tmp_path):
    with read_only(tmp_path), pytest.raises(ConfigurationError, match="must be able to write"):
        lock(tmp_path)


@pytest.mark.parametrize("ended", [True, False], ids=["closed", "killed"])
def test_a_file_on_a_read_only_volume_is_read_with_all_that_was_committed(tmp_path, ended):
    path = tmp_path / "file.sqlite"
    writer = open_to_write(path, "CREATE TABLE IF NOT EXISTS t (a)")
    writer.execute("INSERT INTO t VALUES (1)")
    if ended:
        writer.close()
    with read_only(tmp_path):
        reader = open_to_read(path)
        assert reader.execute("SELECT a FROM t").fetchall() == [(1,)]
        reader.close()
    writer.close()


def test_reading_makes_no_file(tmp_path):
    with pytest.raises(Exception, match="unable to open"):
        open_to_read(tmp_path / "missing.sqlite")
    assert list(tmp_path.iterdir()) == []
