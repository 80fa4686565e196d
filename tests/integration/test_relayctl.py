"""The command line: relays to a real relayer, and a look at a miner's volume."""

import asyncio
import base64
import csv
import json
import signal
import subprocess
import sys
from dataclasses import replace
from urllib.request import Request, urlopen

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from click.testing import CliRunner

from mine import mine
from pocket.coordination.elector import LeaseTiming
from pocket.coordination.lease_names import LeaseNames
from pocket.coordination.shard_leases import ShardLeaseManager
from pocket.errors import ConfigurationError, InvalidRelay
from pocket.protocol.relays.messages import relay_hash
from pocket.protocol.smst.digest import path_of
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.redis_leases import RedisLeaseStore
from relayctl.load import LoadOptions, run_load
from relayctl.main import main
from relays import relaying
from transports import all_transports
from world import address, key

pytestmark = pytest.mark.redis


@pytest.fixture
async def relayer(redis, tmp_path):
    async with relaying(redis, tmp_path) as made:
        yield made


def options(relayer, tmp_path, grpc, rpc, **changes):
    file = tmp_path / "gateway.key"
    file.write_text(f"{key(changes.pop('signer', 'gateway')).scalar:064x}\n")
    fields = {
        "url": relayer.url,
        "node_grpc": grpc,
        "node_rpc": rpc,
        "app": relayer.world.application("eth"),
        "service": "eth",
        "supplier": address("alice"),
        "key_file": file,
        "method": "eth_blockNumber",
        "rest_path": None,
        "timeout": 5.0,
    }
    return LoadOptions.of(fields | changes)


async def test_relays_are_sent_verified_and_counted(relayer, tmp_path, capsys):
    grpc, rpc = relayer.node
    assert await run_load(options(relayer, tmp_path, grpc, rpc), 1, 1, 0.0, show=True) == 0
    assert "signature of" in capsys.readouterr().out
    assert await run_load(options(relayer, tmp_path, grpc, rpc, rest_path="/x"), 20, 4, 1000.0, show=False) == 0
    assert "20 relays in" in capsys.readouterr().out
    assert len(await relayer.leaves()) == 21


@pytest.mark.parametrize("over", ["http", "grpc", "websocket"])
async def test_a_relay_can_be_tried_over_every_transport(redis, tmp_path, capsys, over):
    async with all_transports(redis, tmp_path) as (relayer, _):
        grpc, rpc = relayer.node
        assert await run_load(options(relayer, tmp_path, grpc, rpc, over=over), 1, 1, 0.0, show=True) == 0
        shown = capsys.readouterr().out
        assert f"valid signature of {address('alice')}" in shown
        assert ("echo" if over == "websocket" else "ok") in shown
        relayer.keys.clear()
        assert await run_load(options(relayer, tmp_path, grpc, rpc, over=over), 1, 1, 0.0, show=True) == 1
        assert "the supplier is not served here" in capsys.readouterr().err


async def test_what_cannot_be_sent_is_explained(relayer, tmp_path, capsys):
    grpc, rpc = relayer.node
    with pytest.raises(InvalidRelay, match="not in the session"):
        await run_load(options(relayer, tmp_path, grpc, rpc, supplier=address("carol")), 1, 1, 0.0, show=True)
    with pytest.raises(InvalidRelay, match="delegated gateway"):
        await run_load(options(relayer, tmp_path, grpc, rpc, signer="stranger"), 1, 1, 0.0, show=True)
    with pytest.raises(ConfigurationError, match="without credentials"):
        options(relayer, tmp_path, grpc, rpc, url="http://u:p@x")
    assert await run_load(options(relayer, tmp_path, grpc, rpc, supplier=address("bob")), 2, 1, 0.0, show=False) == 1
    assert "not served here" in capsys.readouterr().err
    assert await run_load(options(relayer, tmp_path, grpc, rpc, url="http://127.0.0.1:1"), 1, 1, 0.0, show=False) == 1


async def test_a_load_goes_on_in_the_new_session_and_groups_its_failures_by_code(relayer, tmp_path, capsys):
    seen = []

    async def expired(request):
        seen.append(request.path)
        refusal = {"error": f"request {len(seen)}", "code": "session_expired", "request_id": f"id-{len(seen)}"}
        if len(seen) in (1, 2):
            return web.json_response(refusal, status=403)
        async with aiohttp.ClientSession() as http, http.post(relayer.url, data=await request.read(),
                                                             headers={"Rpc-Type": "3"}) as answer:  # fmt: skip
            return web.Response(status=answer.status, body=await answer.read())

    app = web.Application()
    app.router.add_post("/", expired)
    grpc, rpc = relayer.node
    async with TestServer(app) as proxy:
        url = str(proxy.make_url("")).rstrip("/")
        assert await run_load(options(relayer, tmp_path, grpc, rpc, url=url), 3, 1, 0.0, show=False) == 1
        shown = capsys.readouterr()
        assert shown.err.strip() == "1 failed: status 403 session_expired", "the first relay was sent twice"
        assert "2 relays in" in shown.out
        seen.clear()
        seen.append("")
        assert await run_load(options(relayer, tmp_path, grpc, rpc, url=url), 3, 1, 0.0, show=False) == 0
        assert "3 relays in" in capsys.readouterr().out


@pytest.mark.parametrize("body", [b"<html>welcome</html>", b"", b"\x0a\xff"])
async def test_an_answer_that_is_no_relay_response_is_named(relayer, tmp_path, capsys, body):
    async def page(_):
        return web.Response(body=body)

    app = web.Application()
    app.router.add_post("/", page)
    grpc, rpc = relayer.node
    async with TestServer(app) as proxy:
        url = str(proxy.make_url("")).rstrip("/")
        assert await run_load(options(relayer, tmp_path, grpc, rpc, url=url), 2, 2, 0.0, show=False) == 1
    shown = capsys.readouterr().err
    assert "no relay response" in shown or "another session header" in shown


def test_help_and_version_name_the_commands():
    runner = CliRunner()
    assert "relayctl 0." in runner.invoke(main, ["version"]).output
    for command in ("demo", "localnet", "relay", "ledger"):
        assert command in runner.invoke(main, ["--help"]).output


async def invoke(*arguments):
    return await asyncio.to_thread(CliRunner().invoke, main, list(arguments))


async def test_an_entry_that_was_no_relay_is_counted_kept_and_shown_with_its_reason(redis, tmp_path):
    async with mine(redis, tmp_path) as alice:
        header = alice.header()
        rows = alice.relays(header, 2)
        await alice.record([replace(rows[0], relay=b"garbage"), rows[1]])
        await alice.to(21)
        assert alice.outcomes()[header.session_id]["details"]["relays"] == 1
        shown = json.loads((await invoke("ledger", "refused", "--data", str(tmp_path))).output)
        told = ("supplier", "session_id", "reason", "size")
        assert [shown[name] for name in told] == [alice.supplier, header.session_id, "not a relay", 7]
        whole = json.loads((await invoke("ledger", "refused", "--content", "--data", str(tmp_path))).output)
        assert base64.b64decode(whole["content"]) == b"garbage"
    (tmp_path / "refused.sqlite").write_bytes(b"no database at all " * 100)
    broken = await invoke("ledger", "refused", "--data", str(tmp_path))
    assert broken.exit_code == 1
    assert "the volume cannot be read" in broken.output


async def test_a_volume_is_verified_exported_and_its_tries_rebuilt(redis, tmp_path):
    async with mine(redis, tmp_path) as alice:
        header = alice.header()
        rows = alice.relays(header, 4)
        await alice.record(rows)
        await alice.to(14)
        folder = str(tmp_path)
        found = await invoke("ledger", "rebuild", "--data", folder)
        assert found.exit_code == 0, found.output
        assert "4 relays" in found.output
        assert "equals the seal" in found.output
        missing = await invoke("ledger", "rebuild", "--data", folder, "--session", "zz")
        assert "no stored session" in missing.output
        path = path_of(relay_hash(rows[0].relay))
        alice.relay_store.file(10)._database.execute("DELETE FROM leaf WHERE path=?", (path,))
        broken = await invoke("ledger", "rebuild", "--data", folder)
        assert broken.exit_code == 1
        assert "DIFFERS FROM THE SEAL" in broken.output
        await alice.to(21)
        assert "1 outcomes, none altered" in (await invoke("ledger", "verify", "--data", folder)).output
        exported = await invoke("ledger", "export", "--data", folder)
        table = await invoke("ledger", "export", "--data", folder, "--format", "csv")
        (row,), whole = csv.DictReader(table.output.splitlines()), json.loads(exported.output)
        assert (row["session_id"], row["outcome"]) == (header.session_id, whole["outcome"])
        assert int(row["fees_upokt"]) == whole["details"]["fees_upokt"] > 0
        assert json.loads(exported.output.splitlines()[0])["session_id"] == header.session_id
        alice.audit._database.execute("UPDATE outcome SET body='{}'")
        assert (await invoke("ledger", "verify", "--data", folder)).exit_code == 1
        assert (await invoke("ledger", "export", "--data", folder)).exit_code == 1
    assert "data folder of a miner" in (await invoke("ledger", "verify", "--data", str(tmp_path / "log"))).output


async def test_a_session_is_explained_while_it_is_open_and_afterwards(redis, tmp_path):
    async with mine(redis, tmp_path) as alice:
        header = alice.header()
        await alice.record(alice.relays(header, 4))
        await alice.to(14)
        folder, start = str(tmp_path), header.session_id[:12]
        opened = (await invoke("ledger", "explain", "--data", folder, start)).output
        assert "ends at 10, 4 relays here" in opened
        assert alice.claim(header).root_hash.hex() in opened
        await alice.to(21)
        ended = (await invoke("ledger", "explain", "--data", folder, start)).output
        for part in ("ended as     settled", "relays       4", "paid         ", alice.supplier, "service      eth"):
            assert part in ended, ended
        unknown = await invoke("ledger", "explain", "--data", folder, "zz")
        assert (unknown.exit_code, "no session on this volume" in unknown.output) == (1, True)


async def test_seals_are_taken_along_and_never_replaced(redis, tmp_path):
    async with mine(redis, tmp_path) as alice:
        header = alice.header()
        await alice.record(alice.relays(header, 4))
        await alice.to(14)
        exported = (await invoke("ledger", "seals", "export", "--data", str(tmp_path))).output
        (tmp_path / "seals.json").write_text(exported)
        other = tmp_path / "other"
        other.mkdir()
        taken = await invoke("ledger", "seals", "import", "--data", str(other), str(tmp_path / "seals.json"))
        assert "1 of 1 seals were new" in taken.output, taken.output
        assert (await invoke("ledger", "seals", "export", "--data", str(other))).output == exported
        again = await invoke("ledger", "seals", "import", "--data", str(other), str(tmp_path / "seals.json"))
        assert "0 of 1 seals were new" in again.output
        changed = json.loads(exported)
        changed["seals"][0]["seal"]["root"] = "00" * 48
        (tmp_path / "seals.json").write_text(json.dumps(changed))
        refused = await invoke("ledger", "seals", "import", "--data", str(other), str(tmp_path / "seals.json"))
        assert (refused.exit_code, "another root" in refused.output) == (1, True)
        for text in ("{}", "[]", "nonsense", '{"version": 2, "seals": []}'):
            (tmp_path / "seals.json").write_text(text)
            bad = await invoke("ledger", "seals", "import", "--data", str(other), str(tmp_path / "seals.json"))
            assert bad.exit_code == 1
            assert "Traceback" not in bad.output


async def test_what_lies_in_redis_can_be_looked_at(redis, redis_process, tmp_path):
    async with mine(redis, tmp_path) as alice:
        header = alice.header()
        await alice.record(alice.relays(header, 4))
        where = ["--redis", redis_process.url, "--prefix", "test", "--json"]

        async def rows(*command):
            done = await invoke("inspect", *command, *where)
            assert done.exit_code == 0, done.output
            return [json.loads(line) for line in done.output.splitlines() if line.startswith("{")]

        (session,) = await rows("sessions")
        assert (session["session"], session["state"], session["relays"]) == (header.session_id, "open", 4)
        await alice.to(14)
        assert (await rows("sessions"))[0]["state"] == "sealed"
        (stream,) = await rows("streams")
        assert stream["replicated"] == stream["last"]
        (seal,) = await rows("seals")
        assert (seal["relays"], seal["units"]) == (4, 400)
        await redis.set(RedisKeys("test").consumed(alice.supplier, header.session_id), 77, ex=100)
        assert (await rows("meters"))[0]["consumed_upokt"] == "77"
        store = RedisLeaseStore(redis, RedisKeys("test").leases, call_seconds=2)
        keeper = ShardLeaseManager(store, LeaseNames("miners", 2), "host:1_u_1", Nobody(), LeaseTiming())
        for _ in range(2):
            await keeper.tick()
        leases = {row["lease"]: row["holder"] for row in await rows("leases")}
        assert leases["miners-shard-0"] == leases["miners-leader"] == "host:1_u_1"
        table = (await invoke("inspect", "sessions", *where[:-1])).output
        assert table.splitlines()[0].split() == ["SUPPLIER", "SESSION", "SERVICE", "END", "STATE", "RELAYS"]
    away = "redis://user:secret-word@127.0.0.1:1/0"
    nowhere = await invoke("inspect", "sessions", "--redis", away, "--prefix", "test")
    assert nowhere.exit_code == 1
    assert "secret-word" not in nowhere.output
    assert "name --redis and --prefix" in (await invoke("inspect", "seals")).output


class Nobody:
    async def known_epoch(self, shard):
        return 0

    async def on_acquired(self, shard, epoch):
        pass

    async def on_lost(self, shard):
        pass


@pytest.mark.processes
@pytest.mark.parametrize("pace", [["--step"], ["--block-seconds", "0"]])
def test_the_localnet_runs_alone_by_command_or_as_fast_as_possible(pace):
    command = [sys.executable, "-m", "relayctl.main", "localnet", "up", "--grpc-port", "0", "--rpc-port", "0", *pace]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = child.stdout.readline()
        rpc = line.split(", RPC ")[1].strip()
        with urlopen(Request(f"{rpc}/localnet/step?blocks=5", method="POST"), timeout=10) as answer:
            assert json.loads(answer.read())["height"] >= 6
    finally:
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=20)
    assert child.returncode == 0
