"""The command line: relays to a real relayer, and a look at a miner's volume."""

import asyncio
import json
import signal
import subprocess
import sys
from urllib.request import Request, urlopen

import pytest
from click.testing import CliRunner

from mine import mine
from relayctl.load import LoadOptions, run_load
from relayctl.main import main
from relays import relaying
from shannon.errors import ConfigurationError, InvalidRelay
from shannon.relays.messages import relay_hash
from shannon.smst.digest import path_of
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
        assert f"signature of {address('alice')} holds" in shown
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


def test_help_and_version_name_the_commands():
    runner = CliRunner()
    assert "relayctl 0." in runner.invoke(main, ["version"]).output
    for command in ("demo", "localnet", "relay", "ledger"):
        assert command in runner.invoke(main, ["--help"]).output


async def invoke(*arguments):
    return await asyncio.to_thread(CliRunner().invoke, main, list(arguments))


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
        assert "no mirrored session" in missing.output
        path = path_of(relay_hash(rows[0].relay))
        alice.mirror.file(10)._database.execute("DELETE FROM leaf WHERE path=?", (path,))
        broken = await invoke("ledger", "rebuild", "--data", folder)
        assert broken.exit_code == 1
        assert "DIFFERS FROM THE SEAL" in broken.output
        await alice.to(21)
        assert "1 outcomes, none altered" in (await invoke("ledger", "verify", "--data", folder)).output
        exported = await invoke("ledger", "export", "--data", folder)
        assert json.loads(exported.output.splitlines()[0])["session_id"] == header.session_id
        alice.audit._database.execute("UPDATE outcome SET body='{}'")
        assert (await invoke("ledger", "verify", "--data", folder)).exit_code == 1
        assert (await invoke("ledger", "export", "--data", folder)).exit_code == 1
    assert "data folder of a miner" in (await invoke("ledger", "verify", "--data", str(tmp_path / "log"))).output


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
