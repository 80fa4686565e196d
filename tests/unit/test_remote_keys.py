"""Keys that a remote signer holds: in the keys folder of a process, and published by the operator."""

import base64

import pytest

from pocket.keys.keyring import Keyring
from pocket.keys.remote_signer import RemoteKey
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket_operator.decide.plan import key_digest, plan
from pocket_operator.decide.reasons import ConditionReason
from pocket_operator.resources import names
from resources import address as address_of_supplier
from resources import changed, key_of
from snapshots import ALICE as SUPPLIER
from snapshots import RM, snapshot
from world import address, key

ALICE = key("alice").public_key


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


def test_a_key_that_moves_to_the_signer_or_back_is_used_from_there(tmp_path):
    local, remote = f"{key('alice').scalar:064x}", f"remote:{ALICE.hex()}"
    loaded = keyring(tmp_path, _Signer(), alice=local)
    for text, kind in ((remote, RemoteKey), (local, PrivateKey)):
        (tmp_path / address("alice")).write_text(text)
        assert loaded.reload() is False  # the same suppliers are served
        assert isinstance(loaded.by_address()[address("alice")], kind)


def test_the_signer_is_a_problem_of_the_process_only_if_no_key_is_its_own(tmp_path):
    signer = _Signer()
    signer.problem = "away"
    loaded = keyring(tmp_path, signer, alice=f"remote:{ALICE.hex()}")
    assert (loaded.signer_problem, loaded.signer_answers) == ("away", False)
    loaded = keyring(tmp_path, signer, bob=f"{key('bob').scalar:064x}")
    assert loaded.signer_problem == ""


# The operator.


REMOTE = {"remote": {"publicKey": PrivateKey.from_hex(key_of("alice")).public_key.hex()}}
OF_BOB = {"remote": {"publicKey": PrivateKey.from_hex(key_of("bob")).public_key.hex()}}


@pytest.mark.parametrize(
    ("key", "signer", "reason"),
    [
        (REMOTE, {"url": "unix:/run/s.sock"}, ConditionReason.LOADED),
        (REMOTE, None, ConditionReason.SIGNER_NOT_CONFIGURED),
        (OF_BOB, {"url": "unix:/run/s.sock"}, ConditionReason.ADDRESS_MISMATCH),
    ],
)
def test_a_remote_key_is_published_as_its_public_half_if_there_is_a_signer(key, signer, reason):
    spec = {**RM["spec"], **({"signer": signer} if signer else {})}
    supplier = changed(SUPPLIER, "spec.key", key)
    found = plan(snapshot(relay_miner={**RM, "spec": spec}, suppliers=(supplier,), published=None))
    assert found.key_checks[0].reason is reason
    if reason is ConditionReason.LOADED:
        (secret,) = (c for c in found.wanted if c["metadata"]["name"] == names.keys("main", "relayer"))
        text = base64.b64decode(secret["data"][address_of_supplier("alice")]).decode()
        assert text == f"remote:{key['remote']['publicKey']}"
        assert found.digests["relayer"] == key_digest([key_of("alice")])
