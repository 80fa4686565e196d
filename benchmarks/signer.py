"""Measure what a remote signer on the same machine costs.

Run with `python -m benchmarks.signer`. Client and signer are two processes, as in production.
"""

import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pocket.api.signer import SignerAccess
from pocket.keys.remote_signer import RemoteSigner
from pocket.keys.signer_protocol import DocumentType, message_of
from pocket.protocol.crypto.addresses import address_of
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket.protocol.relays.messages import RelayResponse, SessionHeader

KEY = PrivateKey(bytes(31) + b"\x07")
RELAY = DocumentType.RELAY_RESPONSE
COUNT = 4000


def document(number: int) -> bytes:
    """Return the bytes of one response."""
    header = SessionHeader(address_of(KEY.public_key), "eth", "session", 1, 10)
    return RelayResponse(header, b"", b"", number.to_bytes(32, "big")).signable_bytes()


async def measure(socket: Path) -> None:
    """Print the latency of single signatures and the throughput of many at once."""
    client = RemoteSigner(SignerAccess(url=f"unix:{socket}", timeout_seconds=10))
    task = asyncio.create_task(client.run())
    documents = [document(number) for number in range(COUNT)]
    await client.sign(KEY.public_key, RELAY, documents[0])
    seconds = []
    for row in documents[:500]:
        began = time.perf_counter()
        await client.sign(KEY.public_key, RELAY, row)
        seconds.append(time.perf_counter() - began)
    seconds.sort()
    print(f"one after the other: p50 {seconds[250] * 1e3:.2f} ms, p99 {seconds[495] * 1e3:.2f} ms")
    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(client.sign(KEY.public_key, RELAY, row) for row in documents))
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(f"{COUNT} at once: {COUNT / took:.0f} signatures/s, {cpu / COUNT * 1e6:.0f} us of the client's CPU each")
    began = time.perf_counter()
    for row in documents:
        KEY.sign(message_of(RELAY, row))
    print(f"key of the process: {(time.perf_counter() - began) / COUNT * 1e6:.0f} us each")
    task.cancel()


def main() -> None:
    """Start a signer and measure it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "keys").mkdir()
        file = folder / "keys" / address_of(KEY.public_key)
        file.touch(mode=0o600)
        file.write_text(f"{KEY.scalar:064x}")
        socket = folder / "s.sock"
        command = [
            sys.executable, "-m", "relayctl.main", "signer", "serve", "--keys", str(folder / "keys"),
            "--data", str(folder / "data"), "--chain-id", "pocket", "--socket", str(socket),
        ]  # fmt: skip
        with subprocess.Popen(command) as signer:
            while not socket.exists() and signer.poll() is None:
                time.sleep(0.05)
            try:
                asyncio.run(measure(socket))
            finally:
                signer.terminate()


if __name__ == "__main__":
    main()
