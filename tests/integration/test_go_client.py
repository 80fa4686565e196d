"""The chain's own client, `pocketd relayminer relay`, sends relays and verifies the responses.

POCKETD names the program. With RECORD=<file> the exchanges are written as vectors.
"""

import asyncio
import contextlib
import json
import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pocket.protocol.relays.messages import decode_mined_relay, decode_relay_response
from relays import relaying
from world import address, key

POCKETD = os.environ.get("POCKETD", "")
pytestmark = [
    pytest.mark.redis,
    pytest.mark.processes,
    pytest.mark.timeout(170),
    pytest.mark.skipif(not POCKETD, reason="POCKETD names no program"),
]
PAYLOAD = '{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}'


async def pocketd(home, *arguments):
    process = await asyncio.create_subprocess_exec(
        POCKETD, *arguments, "--home", str(home), "--keyring-backend", "test",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, stdin=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(), 120)
    return process.returncode, output.decode()


@contextlib.asynccontextmanager
async def recording(url):
    """Forward connections to a server, and keep the bytes of both directions."""
    place, exchanges = urlsplit(url), []

    async def forward(reader, writer, kept):
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                kept += data
                writer.write(data)
            writer.write_eof()

    async def serve(reader, writer):
        inner_reader, inner_writer = await asyncio.open_connection(place.hostname, place.port)
        request, response = bytearray(), bytearray()
        exchanges.append((request, response))
        await asyncio.gather(forward(reader, inner_writer, request), forward(inner_reader, writer, response))
        writer.close()
        inner_writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield "http://{}:{}".format(*server.sockets[0].getsockname()), exchanges


ANSWERS = {
    "a result": (200, {"Content-Type": "application/json"}, b'{"jsonrpc":"2.0","id":1,"result":"0x1"}'),
    "an error of the backend": (404, {"Content-Type": "application/json"}, b'{"error":"no such method"}'),
    "a large result": (200, {"Content-Type": "application/json"}, b'{"result":"' + b"ab" * 10_000 + b'"}'),
    "fields of several values": (200, {"Content-Type": "application/json", "X-Odd": "a, b", "Server": "x"}, b"{}"),
}


@contextlib.asynccontextmanager
async def client_of(relayer, home):
    """Return a function that sends a relay to a supplier, and the recorded exchanges."""
    code, output = await pocketd(home, "keys", "import-hex", "app", f"{key('app eth').scalar:064x}")
    assert code == 0, output
    async with recording(relayer.url) as (url, exchanges):

        async def send(supplier):
            return await pocketd(
                home, "relayminer", "relay", "--app", relayer.world.application("eth"), "--supplier", supplier,
                "--payload", PAYLOAD, "--node", relayer.node[1].replace("http://", "tcp://"),
                "--grpc-addr", relayer.node[0].removeprefix("grpc://"), "--grpc-insecure=true",
                "--supplier-public-endpoint-override", url,
            )  # fmt: skip

        yield send, exchanges


def record(rows):
    """Write the exchanges to the file that RECORD names."""
    if target := os.environ.get("RECORD"):
        ring = sorted([key("gateway").public_key.hex(), key("app eth").public_key.hex()])
        kept = {"ring_public_keys": ring, "supplier_private_key": f"{key('alice').scalar:064x}", "exchanges": rows}
        Path(target).write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


async def test_the_chains_own_client_accepts_the_responses(redis, tmp_path):
    rows = []
    async with relaying(redis, tmp_path) as relayer, client_of(relayer, tmp_path / "home") as (send, exchanges):
        for number, (description, answer) in enumerate(ANSWERS.items()):
            relayer.backend.answer = answer
            code, output = await send(address("alice"))
            assert code == 0, output
            assert f"Backend response status code: {answer[0]}" in output
            leaves = await relayer.leaves()
            assert len(leaves) == number + 1
            request, response = exchanges[-1]
            served = decode_relay_response(bytes(response).partition(b"\r\n\r\n")[2])
            assert decode_mined_relay(leaves[-1])[2] == served.without_payload()
            rows.append({"description": description, "request": request.hex(), "response": response.hex()})
    record(rows)


async def test_the_chains_own_client_rejects_a_response_that_another_supplier_signed(redis, tmp_path):
    async with relaying(redis, tmp_path) as relayer, client_of(relayer, tmp_path / "home") as (send, _):
        relayer.keys[address("alice")] = key("bob")
        code, output = await send(address("alice"))
        assert code != 0 or "signature" in output
        assert "Backend response status code" not in output
