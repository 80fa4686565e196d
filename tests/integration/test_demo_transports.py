"""The demo network as a client on this machine sees it: staked endpoints, and a backend for every rpc type."""

import asyncio
import contextlib
import json
from pathlib import Path

import aiohttp
import pytest
import yaml

from pocket.api.manifests import load_manifests
from pocket.chain.client import ChainClient
from pocket.chain.failover import NodeAddress
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket.protocol.relays.envelope import HttpRequest
from pocket_relayer.backends.framing import frame
from relayctl.client_transports import ClientTransport
from relayctl.gateway import Gateway, json_rpc_envelope, rest_envelope
from relayctl.local_stack import LocalStack
from relayctl.session_commands import describe_session

pytestmark = [pytest.mark.processes, pytest.mark.redis, pytest.mark.timeout(170)]
SAMPLES = Path(__file__).resolve().parents[2] / "manifests/samples/trial"
CALL = b'{"jsonrpc":"2.0","id":1,"method":"status","params":[]}'


@contextlib.asynccontextmanager
async def demo_network(folder):
    manifests = load_manifests([SAMPLES / "relayminer.yaml", SAMPLES / "suppliers.yaml"])
    stack = LocalStack(folder, manifests, SAMPLES / "genesis.yaml")
    try:
        await asyncio.to_thread(stack.start)
        yield stack
    finally:
        await asyncio.to_thread(stack.stop)


@pytest.mark.long
async def test_a_client_reaches_every_rpc_type_at_the_staked_endpoint(tmp_path):
    async with demo_network(tmp_path / "demo") as stack, aiohttp.ClientSession() as http:
        known = yaml.safe_load((SAMPLES / "gateway.yaml").read_text())
        node = NodeAddress.parse(f"grpc://127.0.0.1:{stack.ports['grpc']}", stack.url("rpc"))
        async with ChainClient([node]) as chain:
            gateway = Gateway(chain, http, PrivateKey.from_hex(known["key"]))

            async def relay(service, rpc_type, envelope, over=ClientTransport.HTTP):
                session = await describe_session(chain, known["applications"][service], service)
                supplier, row = min(session["suppliers"].items())
                (url,) = set(row["endpoints"].values())
                assert url == stack.url("relayer")
                signer = await gateway.signer(known["applications"][service], service)
                if over is ClientTransport.WEB_SOCKET:
                    request = signer.sign_payload(supplier, envelope)
                else:
                    request = signer.sign(supplier, envelope)
                answer = await gateway.send(url, request, rpc_type, over=over)
                assert answer.http.status == 200
                return answer.http.body

            assert json.loads(await relay("eth", 3, json_rpc_envelope("http://any/", CALL)))["result"]["path"] == "/"
            assert (
                json.loads(await relay("eth", 5, json_rpc_envelope("http://any/", CALL)))["result"]["method"]
                == "status"
            )
            answer = json.loads(await relay("weather", 4, rest_envelope("http://any/today?units=metric")))
            assert answer == {"path": "/v1/today?units=metric", "method": "GET"}
            events = await relay("weather", 4, rest_envelope("http://any/events"))
            assert [json.loads(line[6:])["event"] for line in events.splitlines() if line] == [0, 1, 2]
            answer = await relay("eth", 2, CALL, ClientTransport.WEB_SOCKET)
            assert json.loads(answer)["result"]["method"] == "status"
            call = HttpRequest(
                "POST", "http://any/demo.Echo/Say", {"Content-Type": ("application/grpc",)}, frame(b"hello")
            )
            assert await relay("eth", 1, call, ClientTransport.GRPC) == frame(b"hello")
