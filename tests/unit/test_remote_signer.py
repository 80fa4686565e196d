"""The remote signer: what it signs, what it refuses, and what its client does while it is away."""

import asyncio
import contextlib
import itertools
import socket
import ssl
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from click.testing import CliRunner
from pydantic import ValidationError

from pocket.api.signer import SignerAccess, SignerSpec
from pocket.chain.model import Account, Block
from pocket.errors import ChainUnavailable, ConfigurationError
from pocket.keys.remote_signer import RemoteKey, SignerRefused, SignerUnavailable
from pocket.keys.signer_protocol import DocumentType, Refusal, message_of
from pocket.protocol.crypto.ecdsa import verify_signature
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket.protocol.relays.messages import RelayResponse
from pocket.protocol.transactions.broadcast_errors import BroadcastFailure
from pocket.protocol.transactions.build import Timestamp
from pocket.protocol.transactions.decode import decode_tx
from pocket_miner.submission.sender import SendError
from pocket_signer.signable import ClaimedRoot
from pocket_signer.signer_commands import ServerTls, listen_on_socket
from relayctl.main import main
from signing import (
    HEADER,
    OTHER_ROOT,
    RESPONSE,
    claim,
    client_of,
    keys_folder,
    running_signer,
    sign_doc,
)
from transaction_nodes import sender_to
from world import key

ALICE = key("alice").public_key
TRANSACTION, RELAY = DocumentType.TRANSACTION, DocumentType.RELAY_RESPONSE
TLS = Path(__file__).parents[1] / "support/tls"


# The client with a real server.


async def test_signatures_come_from_the_signer_and_equal_those_of_the_key(tmp_path):
    results = []
    async with (
        running_signer(tmp_path, "alice", "bob") as signer,
        client_of(signer.access(), observe=lambda result, _: results.append(result)) as client,
    ):
        for kind, document in ((RELAY, RESPONSE), (TRANSACTION, sign_doc())):
            signature = await client.sign(ALICE, kind, document)
            assert signature == key("alice").sign(message_of(kind, document))
        assert client.missing([ALICE, key("bob").public_key, key("carol").public_key]) == [key("carol").public_key]
    assert results == ["signed", "signed"]


async def test_what_waits_for_a_busy_connection_is_sent_as_one_request(tmp_path):
    async with (
        running_signer(tmp_path) as signer,
        client_of(signer.access(connections=1)) as client,
    ):
        documents = [
            RelayResponse(HEADER, b"", b"", number.to_bytes(32, "big")).signable_bytes() for number in range(200)
        ]
        signatures = await asyncio.gather(*(client.sign(ALICE, RELAY, document) for document in documents))
        assert signer.requests <= 5
    for document, signature in zip(documents, signatures, strict=True):
        assert verify_signature(ALICE, message_of(RELAY, document), signature)


async def test_a_second_root_is_refused_by_the_message_that_has_it(tmp_path):
    async with running_signer(tmp_path) as signer, client_of(signer.access()) as client:
        await client.sign(ALICE, TRANSACTION, sign_doc(claim("a")))
        await client.sign(ALICE, TRANSACTION, sign_doc(claim("a"), fee=600))
        await signer.stop()
        await signer.start()
        with pytest.raises(SignerRefused) as refused:
            await client.sign(ALICE, TRANSACTION, sign_doc(claim("b"), claim("a", OTHER_ROOT)))
        assert (refused.value.code, refused.value.index) == (Refusal.SECOND_ROOT, 1)
        with pytest.raises(SignerRefused) as refused:
            await client.sign(key("bob").public_key, RELAY, RESPONSE)
        assert refused.value.code == Refusal.UNKNOWN_KEY


async def test_a_signer_that_is_away_ends_a_wait_at_the_deadline_and_is_used_again(tmp_path):
    async with (
        running_signer(tmp_path) as signer,
        client_of(signer.access(timeoutSeconds=0.2)) as client,
    ):
        await client.sign(ALICE, RELAY, RESPONSE)
        await signer.stop()
        with pytest.raises(SignerUnavailable):
            await client.sign(ALICE, RELAY, RESPONSE)
        assert client.problem
        await signer.start()
        async with asyncio.timeout(20):
            while client.problem:  # noqa: ASYNC110 - the client polls, and nothing announces it
                await asyncio.sleep(0.01)
        assert await client.sign(ALICE, RELAY, RESPONSE)


async def test_a_connection_that_breaks_is_retried_within_the_deadline(tmp_path):
    attempts = itertools.count()

    async with running_signer(tmp_path) as signer:
        real = next(route.handler for route in signer.runner.app.router.routes() if route.method == "POST")
        await signer.stop()

        async def answer(request):
            if request.method == "POST":
                if next(attempts) == 0:
                    request.transport.abort()
                    return web.Response()
                return await real(request)
            return web.json_response({"publicKeys": []})

        await signer.start(answer)
        async with client_of(signer.access()) as client:
            assert await client.sign(ALICE, RELAY, RESPONSE)
        assert signer.requests == 2


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (200, {"results": [{"signature": "00" * 64}]}, "not of this key"),
        (200, {"results": []}, "in time"),
        (200, {"results": [{"signature": "xx"}]}, "in time"),
        (503, {}, "in time"),
    ],
)
async def test_a_wrong_answer_of_the_signer_is_no_signature(tmp_path, status, body, error):
    async def answer(request):
        return web.json_response(body, status=status)

    async with (
        running_signer(tmp_path, answer=answer) as signer,
        client_of(signer.access(timeoutSeconds=0.3)) as client,
    ):
        with pytest.raises(SignerUnavailable, match=error):
            await client.sign(ALICE, RELAY, RESPONSE)


async def test_a_cancelled_caller_leaves_the_others_in_its_batch_alone(tmp_path):
    async with running_signer(tmp_path) as signer, client_of(signer.access(connections=1)) as client:
        calls = [asyncio.create_task(client.sign(ALICE, RELAY, RESPONSE)) for _ in range(5)]
        await asyncio.sleep(0)
        calls[1].cancel()
        found = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(row, bytes) for row in found] == [True, False, True, True, True]


async def test_a_caller_that_leaves_during_the_request_does_not_end_the_client(tmp_path):
    asked, left = asyncio.Event(), asyncio.Event()

    async def answer(request):
        if request.method == "POST":
            asked.set()
            await left.wait()
            signature = key("alice").sign(message_of(RELAY, RESPONSE)).hex()
            return web.json_response({"results": [{"signature": signature}]})
        return web.json_response({"publicKeys": []})

    async with (
        running_signer(tmp_path, answer=answer) as signer,
        client_of(signer.access(connections=1)) as client,
    ):
        call = asyncio.create_task(client.sign(ALICE, RELAY, RESPONSE))
        await asked.wait()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        left.set()
        assert await client.sign(ALICE, RELAY, RESPONSE)


# TLS.


@contextlib.asynccontextmanager
async def tls_signer(folder, certificate, authority):
    """Serve with TLS and return the URL."""
    _tls_files(folder / "server", certificate, authority)
    async with running_signer(folder) as signer:
        context = ServerTls(folder / "server").context
        site = web.TCPSite(signer.runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        yield f"https://localhost:{site._server.sockets[0].getsockname()[1]}"


def _tls_files(folder, certificate, authority):
    folder.mkdir()
    for name in ("tls.crt", "tls.key"):
        (folder / name).write_bytes((TLS / certificate).read_bytes())
    (folder / "ca.crt").write_bytes((TLS / authority).read_bytes())
    return folder


async def test_clients_and_the_signer_show_each_other_certificates(tmp_path):
    async with tls_signer(tmp_path, "good.pem", "authority.pem") as url:
        for certificate, authority, works in (
            ("good.pem", "authority.pem", True),
            ("stranger.pem", "authority.pem", False),
            ("good.pem", "stranger.pem", False),
        ):
            folder = _tls_files(tmp_path / f"{certificate}-{authority}", certificate, authority)
            access = SignerAccess(url=url, tls_dir=folder, timeout_seconds=5 if works else 0.5)
            async with client_of(access) as client:
                if works:
                    assert await client.sign(ALICE, RELAY, RESPONSE)
                else:
                    with pytest.raises(SignerUnavailable):
                        await client.sign(ALICE, RELAY, RESPONSE)


def test_the_server_needs_the_files_of_its_certificate(tmp_path):
    with pytest.raises(ConfigurationError, match=r"tls\.crt"):
        ServerTls(tmp_path)
    assert ServerTls(_tls_files(tmp_path / "x", "good.pem", "authority.pem")).context.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("fields", "good"),
    [
        ({"url": "unix:/run/signer.sock"}, True),
        ({"url": "https://signer:9000", "tlsSecretRef": {"name": "tls"}}, True),
        ({"url": "https://signer:9000"}, False),
        ({"url": "unix:/run/signer.sock", "tlsSecretRef": {"name": "tls"}}, False),
        ({"url": "http://signer:9000"}, False),
        ({"url": "unix:signer.sock"}, False),
    ],
)
def test_the_signer_is_reached_by_a_socket_or_with_certificates(fields, good):
    with contextlib.nullcontext() if good else pytest.raises(ValidationError):
        SignerSpec.model_validate(fields)


@pytest.mark.parametrize(
    "arguments", [[], ["--socket", "s", "--port", "1"], ["--port", "9000"], ["--socket", "s", "--tls", "."]]
)
def test_the_signer_does_not_serve_without_tls_or_a_socket(tmp_path, arguments):
    keys = keys_folder(tmp_path / "keys", "alice")
    command = ["signer", "serve", "--keys", str(keys), "--data", str(tmp_path), "--chain-id", "pocket", *arguments]
    found = CliRunner().invoke(main, command)
    assert (found.exit_code, "--socket, or --port with --tls" in found.output) == (2, True)


# The miner.


class _Chain:
    """A node that simulates everything."""

    async def account(self, address_):
        return Account(address_, 7, 0, None)

    async def simulate(self, raw):
        assert decode_tx(raw).claims
        return 100_000


def _sender(client):
    return sender_to(_Chain(), RemoteKey(ALICE, client))


BLOCK = Block(13, bytes(32), Timestamp.of_nanoseconds(10**18))


async def test_a_claim_with_another_root_is_left_out_of_the_transaction_and_the_others_are_signed(tmp_path):
    async with running_signer(tmp_path) as signer, client_of(signer.access()) as client:
        sender = _sender(client)
        first = await sender.prepare([claim("b")], BLOCK, 16)
        transaction = tx_pb.TxRaw.FromString(first.signed.raw)
        assert verify_signature(ALICE, first.signed.sign_doc_bytes, transaction.signatures[0])
        rows = [claim("a"), claim("b", OTHER_ROOT), claim("c")]
        sifted = await sender.prepare_skipping_rejected(rows, BLOCK, 16)
    assert list(decode_tx(sifted.prepared.signed.raw).claims) == ["a", "c"]
    assert {index: error.refusal for index, error in sifted.refused.items()} == {1: BroadcastFailure.NOT_SIGNED}


async def test_a_simulation_does_not_bind_a_session_to_its_root(tmp_path):
    class Refuses(_Chain):
        async def simulate(self, raw):
            raise ChainUnavailable("no answer")

    async with running_signer(tmp_path) as signer, client_of(signer.access()) as client:
        sender = _sender(client)
        sender._chain = Refuses()
        with pytest.raises(SendError):
            await sender.prepare([claim("a")], BLOCK, 16)
        assert signer.roots.remember(ALICE, [ClaimedRoot("a", OTHER_ROOT, 0)], 1) is None


async def test_a_transaction_waits_for_a_signer_that_is_away(tmp_path):
    async with client_of(SignerAccess(url=f"unix:{tmp_path}/none", timeout_seconds=0.1)) as client:
        with pytest.raises(SendError) as failed:
            await _sender(client).prepare([claim("a")], BLOCK, 16)
    assert failed.value.refusal is BroadcastFailure.UNSIGNED


async def test_a_socket_is_taken_from_a_process_that_is_gone_only(tmp_path):
    path = tmp_path / "signer.sock"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
    runners = [web.AppRunner(web.Application()) for _ in range(3)]
    try:
        for runner in runners:
            await runner.setup()
        await listen_on_socket(runners[0], path)
        with pytest.raises(ConfigurationError, match=r"signer.sock: another process serves this socket"):
            await listen_on_socket(runners[1], path)
        with pytest.raises(ConfigurationError, match=r"none/signer.sock: No such file or directory"):
            await listen_on_socket(runners[2], tmp_path / "none/signer.sock")
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as http:
            assert (await http.get("http://signer/")).status == 404, "it still serves"
    finally:
        for runner in runners:
            await runner.cleanup()
