"""Suppliers whose keys stay with a remote signer: relays, claims and proofs."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pocket.keys.remote_signer import RemoteKey
from pocket.protocol.crypto.ecdsa import verify_signature
from pocket.protocol.relays.messages import decode_relay_response
from pocket_relayer import relayer_metrics
from relayctl.local_process import Process, wait_until
from relays import relaying
from signing import client_of, running_signer
from trial import remote_samples
from world import address, key

SAMPLES = Path(__file__).resolve().parents[2] / "manifests/samples/trial"


@pytest.mark.redis
async def test_a_relay_is_served_and_mined_with_the_signature_of_the_signer(redis, tmp_path):
    async with (
        running_signer(tmp_path / "signer") as signer,
        client_of(signer.access()) as client,
        relaying(redis, tmp_path) as relayer,
    ):
        relayer.keys[address("alice")] = RemoteKey(key("alice").public_key, client)
        status, _, body = await relayer.send(relayer.request(), {"Rpc-Type": "3"})
        assert (status, signer.requests) == (200, 1)
        response = decode_relay_response(body)
        signature = response.supplier_operator_signature
        assert verify_signature(key("alice").public_key, response.signable_hash(), signature)
        assert len(await relayer.leaves()) == 1


@pytest.mark.redis
async def test_without_its_signer_a_supplier_rejects_relays_and_the_others_serve(redis, tmp_path):
    def rejected():
        return relayer_metrics.REJECTED.labels("eth", "signer_unavailable", "http")._value.get()

    async with (
        running_signer(tmp_path / "signer") as signer,
        client_of(signer.access(timeoutSeconds=0.3)) as client,
        relaying(redis, tmp_path) as relayer,
    ):
        relayer.keys[address("alice")] = RemoteKey(key("alice").public_key, client)
        relayer.keys[address("bob")] = key("bob")
        assert (await relayer.send(relayer.request()))[0] == 200
        await signer.stop()
        status, _, body = await relayer.send(relayer.request(body=b"{}"))
        assert (status, b"signer_unavailable" in body) == (503, True)
        asked = len(relayer.backend.requests)
        assert (await relayer.send(relayer.request(body=b"[]")))[0] == 503
        assert len(relayer.backend.requests) == asked  # known to be away: the backend is not asked
        assert (await relayer.send(relayer.request(supplier=address("bob"))))[0] == 200
        assert len(await relayer.leaves()) == 1
        await signer.start()
        async with asyncio.timeout(20):
            while (await relayer.send(relayer.request(body=b"{}")))[0] != 200:  # noqa: ASYNC110 - the client polls
                await asyncio.sleep(0.01)


@pytest.mark.processes
@pytest.mark.redis
@pytest.mark.long
@pytest.mark.timeout(170)
def test_the_demo_is_paid_with_all_keys_at_a_signer(tmp_path):
    socket, demo = tmp_path / "s.sock", tmp_path / "demo"
    demo.mkdir()
    samples, keys = remote_samples(tmp_path, socket)
    command = [
        sys.executable, "-m", "relayctl.main", "signer", "serve", "--keys", str(keys), "--data", str(tmp_path / "data"),
        "--chain-id", "pocket", "--socket", str(socket),
    ]  # fmt: skip
    signer = Process("signer", command, tmp_path / "signer.log")
    signer.start()
    try:
        assert wait_until(socket.exists, 20, ignored=()), signer.tail()
        run = subprocess.run(
            [sys.executable, "-m", "relayctl.main", "demo", "--sessions", "1", "--samples", str(samples)],
            capture_output=True, text=True, timeout=150, check=False, env={**os.environ, "TMPDIR": str(demo)},
        )  # fmt: skip
    finally:
        signer.stop()
    assert run.returncode == 0, run.stdout + run.stderr + signer.tail()
    assert signer.child is not None
    assert signer.child.returncode == 0, signer.tail()
    assert (tmp_path / "data/signed-roots.sqlite").stat().st_size
