"""The remote signer: what it signs, what it refuses, and what its client does while it is away."""

import asyncio
import contextlib
import itertools
import ssl
from pathlib import Path

import pytest
from aiohttp import web
from click.testing import CliRunner
from pydantic import ValidationError

from pocket.api.signer import SignerAccess, SignerSpec
from pocket.chain.model import Account, Block
from pocket.errors import ChainUnavailable, ConfigurationError
from pocket.keys.keyring import Keyring
from pocket.keys.remote_signer import RemoteKey, SignerRefused, SignerUnavailable
from pocket.keys.signer_protocol import DocumentType, Refusal, message_of
from pocket.protocol.crypto.ecdsa import PrivateKey, verify_signature
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket.protocol.relays.messages import RelayResponse
from pocket.protocol.transactions.broadcast_errors import BroadcastFailure
from pocket.protocol.transactions.build import GasPrice, Message, Timestamp
from pocket.protocol.transactions.decode import decode_tx
from pocket.protocol.transactions.timeouts import UnorderedNonceAllocator
from pocket_miner.submission.sender import Sender, SendError
from relayctl.main import main
from relayctl.signer.signable import NotSignable, roots_to_claim
from relayctl.signer.signed_roots import SignedRoots
from relayctl.signer.signer_commands import ServerTls
from signing import (
    HEADER,
    OTHER_ROOT,
    POLICY,
    RESPONSE,
    ROOT,
    claim,
    client_of,
    keys_folder,
    proof,
    running_signer,
    sign_doc,
)
from world import address, key

ALICE = key("alice").public_key
TRANSACTION, RELAY = DocumentType.TRANSACTION, DocumentType.RELAY_RESPONSE
TLS = Path(__file__).parents[1] / "support/tls"


# What may be signed.


def test_claims_and_proofs_of_the_own_supplier_are_signed_and_their_roots_are_known():
    roots = roots_to_claim(TRANSACTION, sign_doc(claim("a"), proof("b"), claim("c")), ALICE, POLICY)
    assert [(row.session_id, row.root, row.index) for row in roots] == [("a", ROOT, 0), ("c", ROOT, 2)]
    assert roots_to_claim(RELAY, RESPONSE, ALICE, POLICY) == ()


def changed(document, part, **fields):
    """Return a document with other fields in one of its parts."""
    doc = tx_pb.SignDoc.FromString(document)
    kind = {"body_bytes": tx_pb.TxBody, "auth_info_bytes": tx_pb.AuthInfo}[part]
    message = kind.FromString(getattr(doc, part))
    message.MergeFrom(kind(**fields))
    setattr(doc, part, message.SerializeToString(deterministic=True))
    return doc.SerializeToString(deterministic=True)


SEND = Message("/cosmos.bank.v1beta1.MsgSend", b"\x0a\x01a")
REFUSED = {
    "another message": (sign_doc(claim(), SEND), Refusal.NOT_ALLOWED, 1),
    "no message": (sign_doc(claim())[:0], Refusal.NOT_ALLOWED, None),
    "another chain": (sign_doc(chain_id="pocket-2"), Refusal.NOT_ALLOWED, None),
    "another supplier": (sign_doc(claim(), claim(supplier="bob")), Refusal.NOT_ALLOWED, 1),
    "a proof of another supplier": (sign_doc(proof(supplier="bob")), Refusal.NOT_ALLOWED, 0),
    "another signer": (sign_doc(signer="bob"), Refusal.NOT_ALLOWED, None),
    "a fee above the limit": (sign_doc(fee=1001), Refusal.NOT_ALLOWED, None),
    "another payer": (
        changed(sign_doc(), "auth_info_bytes", fee=tx_pb.Fee(granter=address("bob"))), Refusal.NOT_ALLOWED, None
    ),
    "a tip": (changed(sign_doc(), "auth_info_bytes", tip=tx_pb.Tip(tipper="x")), Refusal.NOT_ALLOWED, None),
    "a second signer": (
        changed(sign_doc(), "auth_info_bytes", signer_infos=[tx_pb.SignerInfo()]), Refusal.NOT_ALLOWED, None
    ),
    "a second fee": (
        changed(sign_doc(), "auth_info_bytes", fee={"amount": [{"denom": "upokt", "amount": "501"}]}),
        Refusal.NOT_ALLOWED, None,
    ),
    "another coin": (
        changed(sign_doc(), "auth_info_bytes", fee={"amount": [{"denom": "mact", "amount": "1"}]}),
        Refusal.NOT_ALLOWED, None,
    ),
    "extension options": (
        changed(sign_doc(), "body_bytes", extension_options=[{"type_url": "/x"}]), Refusal.NOT_ALLOWED, None
    ),
    "an unknown field": (sign_doc() + b"\xfa\x3f\x01a", Refusal.NOT_ALLOWED, None),
    "no transaction": (b"\xff\xff", Refusal.MALFORMED, None),
    "a short root": (sign_doc(claim(root=bytes(32))), Refusal.MALFORMED, 0),
    "no session": (sign_doc(claim(session_id="")), Refusal.MALFORMED, 0),
    "a relay response": (RESPONSE, Refusal.NOT_ALLOWED, None),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_a_transaction_with_anything_else_in_it_is_refused(what):
    document, refusal, index = REFUSED[what]
    with pytest.raises(NotSignable) as refused:
        roots_to_claim(TRANSACTION, document, ALICE, POLICY)
    assert (refused.value.refusal, refused.value.index) == (refusal, index)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"\xff",
        sign_doc(),
        RelayResponse(HEADER, b"s" * 64, b"", bytes(32)).encode(),
        RelayResponse(HEADER, b"", b"payload", bytes(32)).encode(),
        RelayResponse(HEADER, b"", b"", b"short").encode(),
        RelayResponse(HEADER, b"", b"", None).encode(),
        RelayResponse(None, b"", b"", bytes(32)).encode(),
        RESPONSE + b"\x52\x01a",
    ],
)
def test_bytes_that_are_no_unsigned_relay_response_are_refused(document):
    with pytest.raises(NotSignable) as refused:
        roots_to_claim(RELAY, document, ALICE, POLICY)
    assert refused.value.refusal is Refusal.MALFORMED


# Roots.


def claimed(*sessions, root=ROOT):
    return roots_to_claim(TRANSACTION, sign_doc(*(claim(name, root) for name in sessions)), ALICE, POLICY)


def test_a_second_root_of_a_session_is_a_conflict_also_after_a_restart(tmp_path):
    roots = SignedRoots(tmp_path / "data" / "roots.sqlite")
    assert roots.remember(ALICE, claimed("a", "b"), 1) is None
    assert roots.remember(ALICE, claimed("a"), 2) is None
    assert roots.remember(key("bob").public_key, claimed("a", root=OTHER_ROOT), 2) is None
    roots.close()
    roots = SignedRoots(tmp_path / "data" / "roots.sqlite")
    conflict = roots.remember(ALICE, claimed("c", "b", root=OTHER_ROOT), 3)
    assert conflict is not None
    assert (conflict.session_id, conflict.index) == ("b", 1)
    assert roots.remember(ALICE, claimed("c"), 4) is None  # nothing of the refused transaction was stored
    roots.close()
    assert (tmp_path / "data/roots.sqlite").stat().st_mode & 0o077 == 0


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "roots.sqlite").write_text("no database" * 100)
    with pytest.raises(ConfigurationError, match=r"roots\.sqlite"):
        SignedRoots(tmp_path / "roots.sqlite")


def test_a_root_is_forgotten_by_command(tmp_path):
    roots = SignedRoots(tmp_path / "signed-roots.sqlite")
    roots.remember(ALICE, claimed("a"), 1)
    command = ["signer", "forget", "--data", str(tmp_path), "--public-key", ALICE.hex(), "a"]
    found = CliRunner().invoke(main, command)
    assert (found.exit_code, ROOT.hex() in found.output) == (0, True)
    assert roots.remember(ALICE, claimed("a", root=OTHER_ROOT), 2) is None
    assert CliRunner().invoke(main, [*command[:-1], "z"]).exit_code == 1
    roots.close()


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


# The keyring.


class _Signer:
    problem = ""

    def missing(self, public_keys):
        return []


def keyring(tmp_path, signer, **files):
    for name, text in files.items():
        (tmp_path / address(name)).write_text(text)
    loaded = Keyring(tmp_path, {}, signer=signer)
    loaded.reload()
    return loaded


def test_a_remote_key_counts_as_loaded_with_a_signer_and_not_without(tmp_path):
    texts = {"alice": f"remote:{ALICE.hex()}", "bob": f"{key('bob').scalar:064x}"}
    mixed = keyring(tmp_path, _Signer(), **texts)
    keys = mixed.by_address()
    assert isinstance(keys[address("alice")], RemoteKey)
    assert isinstance(keys[address("bob")], PrivateKey)
    local = keyring(tmp_path, None)
    assert local.addresses == [address("bob")]
    assert mixed.digest != local.digest
    full = keyring(tmp_path, None, alice=f"{key('alice').scalar:064x}")
    assert full.digest == mixed.digest  # the operator compares it, and sees public keys only


@pytest.mark.parametrize(
    "text", ["remote:", "remote:00", f"remote:{'02' + 'ff' * 32}", f"remote:{key('bob').public_key.hex()}"]
)
def test_a_remote_key_of_another_address_or_form_is_not_loaded(tmp_path, text):
    assert keyring(tmp_path, _Signer(), alice=text).addresses == []


def test_the_signer_is_a_problem_of_the_process_only_if_no_key_is_its_own(tmp_path):
    signer = _Signer()
    signer.problem = "away"
    loaded = keyring(tmp_path, signer, alice=f"remote:{ALICE.hex()}")
    assert (loaded.signer_problem, loaded.signer_answers) == ("away", False)
    loaded = keyring(tmp_path, signer, bob=f"{key('bob').scalar:064x}")
    assert loaded.signer_problem == ""


# The miner.


class _Chain:
    """A node that simulates everything."""

    async def account(self, address_):
        return Account(address_, 7, 0, None)

    async def simulate(self, raw):
        assert decode_tx(raw).claims
        return 100_000


def _sender(client):
    return Sender(
        _Chain(), address("alice"), RemoteKey(ALICE, client), chain_id="pocket", gas_price=GasPrice.parse("0.001upokt"),
        gas_adjustment=1.5, block_seconds=1.0, nonces=UnorderedNonceAllocator(),
    )  # fmt: skip


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
        assert signer.roots.remember(ALICE, claimed("a", root=OTHER_ROOT), 1) is None


async def test_a_transaction_waits_for_a_signer_that_is_away(tmp_path):
    async with client_of(SignerAccess(url=f"unix:{tmp_path}/none", timeout_seconds=0.1)) as client:
        with pytest.raises(SendError) as failed:
            await _sender(client).prepare([claim("a")], BLOCK, 16)
    assert failed.value.refusal is BroadcastFailure.UNSIGNED
