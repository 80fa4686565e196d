"""The stack of real processes: keys come and go, workers are told to stop under load."""

import asyncio
import contextlib
import json
import shutil
import signal
import sqlite3
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import aiohttp
import pytest
import yaml

from pocket.api.manifests import load_manifests
from pocket.chain.client import ChainClient
from pocket.chain.failover import NodeAddress
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket.redis_store.connection import connect
from pocket.redis_store.redis_keys import RedisKeys
from relayctl.client_transports import RelayFailed
from relayctl.gateway import Gateway, json_rpc_envelope
from relayctl.local_stack import LocalStack
from trial import secrets_of_the_samples

SAMPLES = Path(__file__).resolve().parents[2] / "manifests/samples/trial"
pytestmark = [pytest.mark.processes, pytest.mark.redis, pytest.mark.timeout(120)]


@contextlib.contextmanager
def started(folder):
    genesis = yaml.safe_load((SAMPLES / "genesis.yaml").read_text())
    genesis["shared_params"]["num_blocks_per_session"] = 200
    (folder / "genesis.yaml").write_text(yaml.safe_dump(genesis))
    manifests = load_manifests([SAMPLES / "relayminer.yaml", SAMPLES / "suppliers.yaml"])
    made = LocalStack(folder / "stack", manifests, folder / "genesis.yaml")
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def stack(tmp_path):
    """Start a stack for one test, which may stop or damage parts of it."""
    with started(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def shared_stack(tmp_path_factory):
    """Start the stack of the tests that leave it as they found it."""
    with started(tmp_path_factory.mktemp("shared")) as made:
        yield made


class Sending:
    """A gateway on the stack's chain."""

    def __init__(self, stack, http, chain):
        self.file = yaml.safe_load((SAMPLES / "gateway.yaml").read_text())
        self.stack, self.number = stack, 0
        self.gateway = Gateway(chain, http, PrivateKey.from_hex(self.file["key"]))

    async def relay(self, supplier=None):
        """Whether one relay was answered and verified."""
        signer = await self.gateway.signer(self.file["applications"]["eth"], "eth")
        self.number += 1
        address = supplier or sorted(signer.session.supplier_addresses)[self.number % 3]
        body = b'{"jsonrpc":"2.0","id":%d,"method":"m"}' % self.number
        request = signer.sign(address, json_rpc_envelope(self.stack.url("relayer") + "/", body))
        try:
            await self.gateway.send(self.stack.url("relayer"), request, 3, timeout_seconds=10)
        except RelayFailed as error:
            return error.status
        return 200

    async def until(self, status, supplier):
        """Send relays until one has the wanted status.

        The test's own timeout bounds it.
        """
        async with asyncio.timeout(20):
            while await self.relay(supplier) != status:
                pass


async def recorded(stack):
    redis = connect(stack.redis.url)
    total = 0
    async for name in redis.scan_iter("pocket-trial-trial:relays:*"):
        total += await redis.xlen(name)
    await redis.aclose()
    return total


def node(stack):
    return NodeAddress.parse(f"grpc://127.0.0.1:{stack.ports['grpc']}", stack.url("rpc"))


@pytest.mark.long
async def test_a_stop_under_load_loses_no_acknowledged_relay(stack):
    async with aiohttp.ClientSession() as http, ChainClient([node(stack)]) as chain:
        sending = Sending(stack, http, chain)
        answers = []

        async def sender():
            while len(answers) < 300:
                answers.append(await sending.relay())
                if len(answers) == 120:
                    stack.processes["relayer"].child.send_signal(signal.SIGTERM)
                if answers[-1] == 0:
                    return

        await asyncio.gather(*(sender() for _ in range(16)))
        assert await asyncio.to_thread(stack.processes["relayer"].child.wait, 30) == 0
        acknowledged = answers.count(200)
        assert acknowledged >= 120
        assert await recorded(stack) == acknowledged


async def test_a_supplier_appears_and_disappears_without_restart(shared_stack):
    stack = shared_stack
    keys = stack.folder / "keys"
    supplier = min(p.name for p in keys.iterdir())
    async with aiohttp.ClientSession() as http, ChainClient([node(stack)]) as chain:
        sending = Sending(stack, http, chain)
        assert await sending.relay(supplier) == 200
        shutil.move(keys / supplier, stack.folder / "aside")
        await sending.until(503, supplier)
        # Atomic, as a mounted Secret appears.
        shutil.move(stack.folder / "aside", keys / supplier)
        await sending.until(200, supplier)
        for name in ("relayer", "miner"):
            assert stack.processes[name].starts == 1
            assert stack.processes[name].running


async def test_a_pod_tells_of_relays_that_redis_did_not_take_until_it_has_them(shared_stack):
    stack = shared_stack
    keys = stack.folder / "keys"
    supplier = max(p.name for p in keys.iterdir())  # of which no other test sends relays

    def leaving():
        with urlopen(stack.url("relayer-admin") + "/report", timeout=10) as answer:
            found = json.load(answer)
        return found["leaving"] if found["complete"] and supplier not in found["addresses"] else None

    async def until_leaving(wanted):
        async with asyncio.timeout(20):
            while await asyncio.to_thread(leaving) != wanted:
                pass

    redis = connect(stack.redis.url)
    async with aiohttp.ClientSession() as http, ChainClient([node(stack)]) as chain:
        sending = Sending(stack, http, chain)
        signer = await sending.gateway.signer(sending.file["applications"]["eth"], "eth")
        stream = RedisKeys("pocket-trial-trial").stream(supplier, signer.session.header.session_id)
        await redis.set(stream, "not a stream")
        assert await sending.relay(supplier) == 503
        shutil.move(keys / supplier, stack.folder / "aside")
        await until_leaving([supplier])
        await redis.delete(stream)
        await until_leaving([])
        assert await redis.xlen(stream) == 1
        shutil.move(stack.folder / "aside", keys / supplier)
        await sending.until(200, supplier)
    await redis.aclose()


async def test_services_change_in_all_workers_while_they_serve_and_a_broken_file_changes_nothing(shared_stack):
    stack = shared_stack
    supplier = min(p.name for p in (stack.folder / "keys").iterdir())
    file = stack.folder / "hot.json"
    good = file.read_text()

    def put(text):
        (stack.folder / "hot.new").write_text(text)
        (stack.folder / "hot.new").replace(file)

    connector = aiohttp.TCPConnector(force_close=True)  # each relay may meet another worker
    async with aiohttp.ClientSession(connector=connector) as http, ChainClient([node(stack)]) as chain:
        sending = Sending(stack, http, chain)

        async def all_answer(status):
            in_a_row = 0
            async with asyncio.timeout(20):
                while in_a_row < 20:
                    in_a_row = in_a_row + 1 if await sending.relay(supplier) == status else 0

        await all_answer(200)
        changed = json.loads(good)
        changed["services"] = [service for service in changed["services"] if service["id"] != "eth"]
        put(json.dumps(changed))
        await all_answer(404)
        put('{"services": [{"id": "eth"}]}')
        await all_answer(404)
        put(good)
        await all_answer(200)
        assert stack.processes["relayer"].starts == 1


@pytest.mark.long
async def test_a_miner_whose_files_are_damaged_sets_them_aside_and_reads_the_relays_again(stack):
    miner = stack.processes["miner"]
    async with aiohttp.ClientSession() as http, ChainClient([node(stack)]) as chain:
        sending = Sending(stack, http, chain)
        assert [await sending.relay() for _ in range(12)] == [200] * 12
        async with asyncio.timeout(60):
            while await asyncio.to_thread(mirrored, stack) != 12:
                pass
            miner.kill()
            for path in (*stack.folder.rglob("end-*.sqlite"), *stack.folder.rglob("audit.sqlite")):
                path.write_bytes(b"bytes that nobody wrote" * 1000)
                path.with_name(path.name + "-wal").unlink()
            miner.start()
            while await asyncio.to_thread(mirrored, stack) != 12:
                assert miner.running
    assert {path.name for path in stack.folder.rglob("*.damaged-1")} == {
        "end-200.sqlite.damaged-1",
        "audit.sqlite.damaged-1",
    }
    assert "file moved away" in miner.log.read_text()


def mirrored(stack):
    """Relays on the miner's volume."""
    total = 0
    for path in stack.folder.rglob("end-*.sqlite"):
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path, timeout=0)) as database:
            total += database.execute("SELECT count(*) FROM leaf").fetchone()[0]
    return total


def test_metrics_of_all_workers_are_merged_and_no_secret_is_in_any_output(stack):
    async def some_relays():
        async with aiohttp.ClientSession() as http, ChainClient([node(stack)]) as chain:
            sending = Sending(stack, http, chain)
            return [await sending.relay() for _ in range(12)]

    assert asyncio.run(some_relays()) == [200] * 12

    def output(name, path):
        with urlopen(stack.url(name) + path, timeout=10) as answer:
            return answer.read().decode()

    def total(name, metric):
        rows = [line for line in output(name, "/metrics").splitlines() if f"{metric}{{" in line]
        return sum(float(line.rsplit(" ", 1)[1]) for line in rows)

    def totals():
        return total("relayer-admin", "relays_served_total"), total("miner-admin", "relays_stored_total")

    async def counted():
        async with asyncio.timeout(
            30
        ):  # an answer is written before it is counted, and the miner takes its shards first
            while await asyncio.to_thread(totals) != (12, 12):
                pass

    asyncio.run(counted())
    pages = (("relayer-admin", "/metrics"), ("miner-admin", "/metrics"), ("miner-admin", "/status"))
    outputs = {name + path: output(name, path) for name, path in pages}
    assert "pocket_miner_relays_stored_total{" in outputs["miner-admin/metrics"]
    assert "_created{" not in outputs["miner-admin/metrics"]
    with pytest.raises(HTTPError) as refused:
        urlopen(stack.url("relayer") + "/ready/none", timeout=10)
    refused.value.close()
    stack.stop()
    for log in stack.folder.glob("*.log"):
        outputs[log.name] = log.read_text()
    secrets = secrets_of_the_samples()
    assert len(secrets) == 4
    for name, text in outputs.items():
        assert not [secret for secret in secrets if secret in text], name
