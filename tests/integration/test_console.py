"""A look at a miner from inside its pod, and a copy of its volume that goes on where the miner stood."""

import asyncio
import base64
import hashlib
import json
import sqlite3

import pytest
from click.testing import CliRunner

import slow_curve as slow
from mine import PREFIX, slow_root
from pocket_miner.console import backup
from pocket_miner.console.__main__ import main
from pocket_miner.console.backup import BackupError, back_up
from pocket_miner.console.places import VARIABLE

pytestmark = pytest.mark.redis


async def invoke(*arguments, **environment):
    return await asyncio.to_thread(CliRunner().invoke, main, list(arguments), env=environment)


@pytest.fixture
def pod(redis_process, tmp_path):
    """Return the configuration of a miner's pod, with this test's Redis and folder."""
    document = {
        "name": "trial", "namespace": "default", "prefix": PREFIX, "redisUrl": "env:POCKET_REDIS_URL",
        "keysDir": str(tmp_path), "dataDir": str(tmp_path),
        "chain": {"id": "pocket", "gasPrice": "0.001upokt", "nodes": [{"grpc": "grpc://n:9090", "rpc": "http://n:1"}]},
    }  # fmt: skip
    path = tmp_path / "miner.json"
    path.write_text(json.dumps(document))
    return {VARIABLE: str(path), "POCKET_REDIS_URL": redis_process.url}


async def test_in_its_pod_everything_is_found_without_being_named(alice, pod):
    header = alice.header()
    await alice.record(alice.relays(header, 3))
    await alice.to(14)
    shown = await invoke("inspect", "sessions", "--json", **pod)
    row = json.loads(shown.output)
    assert (row["session"], row["state"], row["relays"]) == (header.session_id, "sealed", 3)
    assert "ends at 10, 3 relays here" in (await invoke("ledger", "explain", header.session_id, **pod)).output
    assert (await invoke("inspect", "leases", **pod)).output == "nothing\n"


async def test_outside_a_pod_it_says_what_to_name(tmp_path):
    assert "name --redis and --prefix" in (await invoke("inspect", "sessions", **{VARIABLE: ""})).output
    assert "--data FOLDER" in (await invoke("ledger", "verify", **{VARIABLE: ""})).output
    missing = await invoke("ledger", "verify", **{VARIABLE: str(tmp_path / "none.json")})
    assert "none.json: No such file" in missing.output


@pytest.mark.parametrize("height", [5, 12, 13, 15, 17])
async def test_a_miner_on_a_copy_of_the_volume_and_an_empty_redis_goes_on_and_is_paid(alice, redis, height):
    header = alice.header()
    rows = alice.relays(header, 12)
    await alice.record(rows)
    await alice.to(height)
    copy = alice.folder / "copy"
    told = await invoke("ledger", "backup", "--data", str(alice.folder), str(copy))
    assert told.output == f"2 files in {copy}\n"
    alice.close()
    await redis.flushdb()
    alice.folder = copy
    alice.start()
    await alice.to(21)
    outcome = alice.outcomes()[header.session_id]
    assert (outcome["outcome"], outcome["details"]["relays"]) == ("settled", 12)
    claims = [t for t in alice.chain.transactions.values() if "/pocket.proof.MsgCreateClaim" in t.actions]
    assert len(claims) == 1
    assert slow_root(rows) in claims[0].raw


async def test_a_second_reader_computes_the_claimed_root_from_what_is_printed(alice, tmp_path):
    header = alice.header()
    await alice.record(alice.relays(header, 9))
    await alice.to(14)
    shown = await invoke("ledger", "relays", "--data", str(tmp_path), header.session_id[:12])
    rows = [json.loads(line) for line in shown.output.splitlines()]
    leaves = {
        hashlib.sha256(bytes.fromhex(row["relay_hash"])).digest(): (
            base64.b64decode(row["relay"]),
            row["compute_units"],
        )
        for row in rows
    }
    assert len(rows) == 9
    assert slow.trie_root(leaves) == alice.claim(header).root_hash
    await alice.to(21)
    assert alice.outcomes()[header.session_id]["details"]["root"] == slow.trie_root(leaves).hex()
    gone = await invoke("ledger", "relays", "--data", str(tmp_path), header.session_id)
    assert "no open session" in gone.output


async def test_a_copy_never_replaces_anything(alice, tmp_path):
    (tmp_path / "there").mkdir()
    told = await invoke("ledger", "backup", "--data", str(tmp_path), str(tmp_path / "there"))
    assert told.exit_code == 1
    assert "already exists: name a new folder" in told.output


async def test_a_damaged_volume_gives_no_copy_and_leaves_nothing(alice, tmp_path):
    await alice.record(alice.relays(alice.header(), 3))
    await alice.to(3)
    alice.close()
    (tmp_path / "mirror" / "end-10.sqlite").write_bytes(b"no database at all " * 100)
    with pytest.raises(BackupError, match="not copied"):
        back_up(tmp_path, tmp_path / "copy")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("copy")]


async def test_a_session_that_ends_while_the_volume_is_copied_is_left_out(alice, tmp_path, monkeypatch):
    await alice.record(alice.relays(alice.header(), 3))
    await alice.to(3)
    copy, relay_store = backup._copy, tmp_path / "mirror" / "end-10.sqlite"

    def ends_now(source, target):
        copy(source, target)
        if source.name == "audit.sqlite":
            relay_store.unlink()

    monkeypatch.setattr(backup, "_copy", ends_now)
    assert [str(name) for name in back_up(tmp_path, tmp_path / "copy")] == ["audit.sqlite"]
    assert not (tmp_path / "copy" / "mirror" / "end-10.sqlite").exists()
    with sqlite3.connect(tmp_path / "copy" / "audit.sqlite") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()
