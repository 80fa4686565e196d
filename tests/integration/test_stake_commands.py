"""`relayctl stake` against a localnet: plan, sign without a network, send."""

import asyncio
import base64
import contextlib
import json
from dataclasses import replace

import pytest
import yaml
from click.testing import CliRunner

from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket_localnet.local_chain import LocalChain
from pocket_localnet.server import serve
from relayctl.main import main
from resources import supplier
from world import World, address, key

STAKE = {
    "amountUpokt": 5_000_000,
    "services": [{"id": "eth", "endpoints": [{"url": "https://relay.example", "rpcType": "jsonRpc"}]}],
}


class Command:
    """`relayctl stake` on a running localnet, with files in a folder."""

    def __init__(self, localnet, folder):
        self.localnet, self.folder = localnet, folder
        self.node = ("--grpc", localnet.grpc_url, "--rpc", localnet.rpc_url)
        (folder / "key").write_text(f"{key('carol').scalar:064x}\n")

    def declare(self, **changes):
        body = supplier("default", "carol", stake=STAKE | changes)
        body["spec"]["operatorAddress"] = address("carol")
        (self.folder / "supplier.yaml").write_text(yaml.safe_dump(body))

    async def run(self, *arguments):
        result = await asyncio.to_thread(CliRunner().invoke, main, ["stake", *map(str, arguments)])
        return result.exit_code, result.output

    async def plan(self, *options):
        return await self.run(
            "plan", "-f", self.folder / "supplier.yaml", "-o", self.folder / "plan", *options, *self.node
        )

    async def sign(self, key_file="key", *options):
        files = (self.folder / "plan", "--key-file", self.folder / key_file, "-o", self.signed)
        return await self.run("sign", *files, *options)

    @property
    def signed(self):
        return self.folder / "signed"

    async def send(self):
        return await self.run("send", self.signed, "--wait", 20, *self.node)

    @property
    def balance(self):
        return self.localnet.chain.state.balances[address("carol")]


@pytest.fixture
async def command(tmp_path):
    world = World()
    accounts = [*world.genesis().accounts, {"address": address("carol"), "balance": 60_000_000}]
    chain = LocalChain(world.genesis(accounts=accounts, minimum_gas_price="0.000001upokt"))
    async with serve(chain) as localnet:
        yield Command(localnet, tmp_path)


@contextlib.asynccontextmanager
async def blocks(localnet):
    async def go_on():
        while True:
            await asyncio.sleep(0.05)
            localnet.step()

    task = asyncio.create_task(go_on())
    yield
    task.cancel()


async def test_a_declared_stake_is_planned_signed_offline_and_sent_once(command):
    command.declare()
    code, shown = await command.plan("--unsigned", command.folder / "unsigned")
    assert code == 0, shown
    assert "cost: 6000001 upokt (stake 5000000, staking fee 1000000, transaction fee 1)" in shown
    unsigned = json.loads((command.folder / "unsigned").read_text())
    assert unsigned["body"]["messages"][0]["@type"] == "/pocket.supplier.MsgStakeSupplier"
    assert unsigned["signatures"] == []
    assert (await command.sign())[0] == 0
    async with blocks(command.localnet):
        code, shown = await command.send()
        assert code == 0, shown
        # The same file again: the chain is asked first, and no second fee is paid.
        again, shown_again = await command.send()
    assert (again, shown_again) == (0, shown)
    assert command.balance == 60_000_000 - 6_000_001
    record = command.localnet.chain.state.suppliers[address("carol")]
    assert (record.owner_address, record.stake_upokt) == (address("carol"), 5_000_000)
    code, shown = await command.plan()
    assert code == 4, shown


async def test_a_stake_of_another_owner_is_refused_with_its_name(command):
    chain = command.localnet.chain
    record = chain.state.suppliers[address("alice")]
    chain.state.suppliers[address("carol")] = replace(record, operator_address=address("carol"))
    command.declare()
    code, shown = await command.plan()
    assert code == 3
    assert address("alice") in shown
    assert not (command.folder / "plan").exists()


async def test_what_the_chain_would_refuse_costs_no_fee(command):
    command.declare(services=[{"id": "nosuch", "endpoints": STAKE["services"][0]["endpoints"]}])
    assert (await command.plan())[0] == 0
    assert (await command.sign())[0] == 0
    code, shown = await command.send()
    assert code == 1
    assert 'service "nosuch" does not exist' in shown
    assert command.balance == 60_000_000


async def test_what_is_signed_is_shown_and_can_be_bound_to_the_plan(command):
    command.declare()
    _, planned = await command.plan()
    checksum = planned.rpartition(": ")[2].strip()
    code, shown = await command.sign("key", "--checksum", checksum)
    assert code == 0, shown
    assert f"checksum {checksum}" in shown
    assert "publicly_exposed_url" in shown or "https://relay.example" in shown
    assert f"signer {address('carol')}, chain" in shown
    file = command.folder / "plan"
    content = json.loads(file.read_text())
    content["unsigned"]["body"]["messages"][0]["owner_address"] = address("alice")
    file.write_text(json.dumps(content))
    command.signed.unlink()
    code, shown = await command.sign("key", "--checksum", checksum)
    assert code == 1
    assert f"not {checksum}: it was changed since it was planned" in shown
    assert not command.signed.exists()


@pytest.mark.parametrize("name", ["binary", "missing/plan"])
async def test_files_that_cannot_be_read_or_written_are_named(command, name):
    command.declare()
    (command.folder / "binary").write_bytes(b"\xff\xfe")
    if name == "binary":
        code, shown = await command.run("sign", command.folder / name, "-o", command.signed)
    else:
        code, shown = await command.run(
            "plan", "-f", command.folder / "supplier.yaml", "-o", command.folder / name, *command.node
        )
    assert code == 1
    assert str(command.folder / name) in shown
    assert "Traceback" not in shown


async def test_a_plan_signs_only_with_its_key_and_only_as_it_was_made(command):
    command.declare()
    assert (await command.plan())[0] == 0
    (command.folder / "other").write_text(f"{key('alice').scalar:064x}\n")
    code, shown = await command.sign("other")
    assert code == 1
    assert address("alice") in shown
    file = command.folder / "plan"
    content = json.loads(file.read_text())
    content["unsigned"]["auth_info"]["fee"]["gas_limit"] = "9"
    file.write_text(json.dumps(content))
    code, shown = await command.sign()
    assert code == 1
    assert "was changed" in shown
    assert not command.signed.exists()


@pytest.mark.parametrize("content", ["no base64!", base64.b64encode(b"\xff\xff").decode()])
async def test_a_file_that_is_no_transaction_is_named(command, content):
    command.signed.write_text(content)
    code, shown = await command.send()
    assert code == 1
    assert "not a signed transaction" in shown


@pytest.mark.parametrize("unsigned", [b"", tx_pb.TxRaw(body_bytes=b"\x0a\x00").SerializeToString()])
async def test_a_transaction_without_a_signature_is_not_sent(command, unsigned):
    command.signed.write_text(base64.b64encode(unsigned).decode())
    code, shown = await command.send()
    assert code == 1
    assert f"{command.signed}: the transaction is not signed" in shown


async def test_two_writers_with_one_sequence_pay_once(command):
    """What is signed offline is void after another transaction of its signer."""
    command.declare()
    assert (await command.plan())[0] == 0
    assert (await command.sign())[0] == 0
    chain = command.localnet.chain
    account = chain.state.accounts[address("carol")]
    chain.state.accounts[address("carol")] = type(account)(account.address, account.number, 1, None)
    chain.step()
    code, shown = await command.send()
    assert code == 1
    assert "account sequence mismatch" in shown
