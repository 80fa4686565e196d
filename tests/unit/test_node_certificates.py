"""Chain nodes over TLS: which authorities are trusted, and what an expired certificate costs."""

import contextlib
import re
from pathlib import Path

import grpc
import pytest

from pocket.chain.client import ChainClient
from pocket.chain.failover import NodeAddress
from pocket.errors import ChainUnavailable, ConfigurationError
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket.runtime.grpc_authorities import channel_credentials

TLS = Path(__file__).parents[1] / "support/tls"
PEM = re.compile(rb"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----\n?", re.DOTALL)


class Node(grpc.GenericRpcHandler):
    def service(self, details):
        async def broadcast(request, context):
            response = tx_pb.BroadcastTxResponse()
            response.tx_response.txhash = "AB" * 32
            return response.SerializeToString()

        return grpc.unary_unary_rpc_method_handler(broadcast)


@contextlib.asynccontextmanager
async def serving(certificate, port=0):
    """Serve a node over TLS, and yield its port."""
    parts = {match[1]: match[0] for match in PEM.finditer((TLS / certificate).read_bytes())}
    (key,) = (text for name, text in parts.items() if name.endswith(b"PRIVATE KEY"))
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((Node(),))
    credentials = grpc.ssl_server_credentials([(key, parts[b"CERTIFICATE"])])
    port = server.add_secure_port(f"127.0.0.1:{port}", credentials)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


def node(port):
    return NodeAddress.parse(f"grpcs://127.0.0.1:{port}", "http://127.0.0.1:1")


async def accepts(addresses):
    async with ChainClient(addresses, timeout_seconds=5.0) as chain:
        return (await chain.broadcast(b"raw")).code == 0


async def test_authorities_of_the_owner_are_trusted_over_grpc_as_over_https(monkeypatch):
    async with serving("good.pem") as port:
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        with pytest.raises(ChainUnavailable):
            await accepts([node(port)])
        monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "authority.pem"))
        assert await accepts([node(port)])


def test_a_file_of_authorities_that_cannot_be_read_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(ConfigurationError, match=r"SSL_CERT_FILE=.*none.pem: No such file"):
        channel_credentials()


async def test_an_expired_certificate_of_one_node_costs_nothing_and_a_renewed_one_is_used(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "authority.pem"))
    async with serving("good.pem") as good:
        async with serving("expired.pem") as port:
            assert await accepts([node(port), node(good)])
            with pytest.raises(ChainUnavailable):
                await accepts([node(port)])
            chain = ChainClient([node(port)], timeout_seconds=5.0)
            with pytest.raises(ChainUnavailable):
                await chain.broadcast(b"raw")
        async with chain, serving("good.pem", port):
            assert (await chain.broadcast(b"raw")).code == 0, "no restart of the client is needed"
