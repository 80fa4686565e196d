import base64
import json

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from nacl.public import PublicKey, SealedBox

from pocket.keys.sealed_box import (
    SECRET_OF_NAMESPACE,
    Controller,
    SealedForAnother,
    SealError,
    Subject,
    UnknownController,
    key_id,
    seal,
)
from pocket.protocol.crypto.addresses import address_of
from pocket.protocol.crypto.ecdsa import PrivateKey
from relayctl.main import main

KEY = "ab" * 32


def encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text.strip(), validate=True)
    except ValueError:
        return b""


ALICE = Subject("ns", "alice", "pokt1alice")


@pytest.fixture
def controller() -> Controller:
    return Controller.of([Controller.generate()])


def test_what_is_sealed_is_opened_again(controller):
    assert controller.open(seal(controller.newest, ALICE, KEY), ALICE) == KEY


@pytest.mark.parametrize(
    "other", [Subject("other", "alice", "pokt1alice"), Subject("ns", "bob", "pokt1alice"), Subject("ns", "alice", "x")]
)
def test_a_sealed_key_is_bound_to_its_namespace_name_and_address(controller, other):
    with pytest.raises(SealedForAnother) as caught:
        controller.open(seal(controller.newest, ALICE, KEY), other)
    assert KEY not in str(caught.value)


def test_another_operator_cannot_open_it_and_says_which_key_is_missing(controller):
    text = seal(controller.newest, ALICE, KEY)
    with pytest.raises(UnknownController, match=key_id(controller.newest)):
        Controller.of([Controller.generate()]).open(text, ALICE)


@given(position=st.integers(0, 400), bit=st.integers(0, 7))
def test_no_altered_bit_is_accepted(position, bit):
    controller = Controller.of([bytes(range(32))])
    raw = bytearray(base64.b64decode(seal(controller.newest, ALICE, KEY)))
    raw[position % len(raw)] ^= 1 << bit
    with pytest.raises(SealError):
        controller.open(base64.b64encode(bytes(raw)).decode(), ALICE)


@given(st.text(max_size=200) | st.binary(max_size=300).map(lambda raw: base64.b64encode(raw).decode()))
def test_any_other_text_is_refused_with_a_typed_error(text):
    with pytest.raises(SealError):
        Controller.of([bytes(range(32))]).open(text, ALICE)


@pytest.mark.parametrize("plain", [[], {"version": 2, "key": KEY}, {"version": 1}, {"version": 1, "key": 5}, "x"])
def test_a_box_with_other_content_is_refused(controller, plain):
    public = controller.newest
    box = SealedBox(PublicKey(public)).encrypt(json.dumps(plain).encode())
    text = base64.b64encode(b"PKS1" + bytes.fromhex(key_id(public)) + box).decode()
    with pytest.raises(SealError, match="does not hold a supplier key"):
        controller.open(text, ALICE)


def test_after_a_rotation_old_texts_open_and_are_offered_resealed():
    old, new = Controller.generate(), Controller.generate()
    text = seal(Controller.of([old]).newest, ALICE, KEY)
    both = Controller.of([old, new])
    assert both.open(text, ALICE) == KEY
    again = both.reseal(text, ALICE)
    assert again is not None
    assert Controller.of([new]).open(again, ALICE) == KEY
    assert both.reseal(again, ALICE) is None


def test_what_is_offered_already_is_offered_again_while_it_is_good():
    old, new = Controller.generate(), Controller.generate()
    text = seal(Controller.of([old]).newest, ALICE, KEY)
    both = Controller.of([old, new])
    offered = both.reseal(text, ALICE)
    assert both.reseal(text, ALICE, offered) == offered
    other_key = seal(both.newest, ALICE, "cd" * 32)
    other_supplier = seal(both.newest, Subject("ns", "bob", "pokt1bob"), KEY)
    for bad in ("", "no sealed text", text, other_key, other_supplier):
        again = both.reseal(text, ALICE, bad)
        assert again not in (None, bad)
        assert Controller.of([new]).open(again, ALICE) == KEY


def test_a_sealing_key_of_another_length_is_refused():
    with pytest.raises(SealError, match="32 bytes"):
        Controller.of([b"short"])
    with pytest.raises(SealError, match="32 bytes"):
        seal(b"short", ALICE, KEY)


def test_nothing_that_is_printed_shows_a_key(controller):
    assert controller.keys[0].hex() not in repr(controller)
    assert repr(controller.keys[0]) not in repr(controller)


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=60) | st.binary(max_size=40).map(encoded)))
def test_a_namespaces_sealing_keys_are_what_is_a_key_and_nothing_else_matters(entries):
    kept = [raw for _, text in sorted(entries.items()) if len(raw := decoded(text)) == 32]
    assert list(Controller.of_texts(entries).keys) == kept


def test_the_newest_sealing_key_of_a_namespace_is_its_last_by_name():
    older, newer = Controller.generate(), Controller.generate()
    found = Controller.of_texts({"2026-02": encoded(newer) + "\n", "2026-01": encoded(older)})
    assert found.newest == Controller.of([newer]).newest


def test_only_the_keys_that_a_text_is_sealed_to_know_it(controller):
    text = seal(controller.newest, ALICE, KEY)
    assert controller.knows(text)
    assert not Controller.of([Controller.generate()]).knows(text)
    assert not controller.knows("no sealed text")


def test_a_sealing_secret_is_readable_by_its_owner_alone_and_its_public_key_seals(tmp_path):
    file, key_file = tmp_path / "sealing.yaml", tmp_path / "alice.key"
    key_file.write_text(KEY)
    made = CliRunner().invoke(main, ["keys", "sealing-secret", str(file), "--namespace", "ns"])
    assert (made.exit_code, file.stat().st_mode & 0o777) == (0, 0o600)
    secret = yaml.safe_load(file.read_text())
    assert (secret["metadata"], len(secret["stringData"])) == ({"name": SECRET_OF_NAMESPACE, "namespace": "ns"}, 1)
    assert not [text for text in secret["stringData"].values() if text in made.output]
    told = CliRunner().invoke(main, ["keys", "seal", "--key-file", str(key_file), "--public-key", made.output.strip(),
                                     "--namespace", "ns", "--name", "alice"])  # fmt: skip
    subject = Subject("ns", "alice", address_of(PrivateKey.from_hex(KEY).public_key))
    assert Controller.of_texts(secret["stringData"]).open(told.stdout.strip(), subject) == KEY
    again = CliRunner().invoke(main, ["keys", "sealing-secret", str(file), "--namespace", "ns"])
    assert (again.exit_code, "File exists" in again.output) == (1, True)


def test_a_generated_key_is_readable_by_its_owner_alone_and_never_replaces_another(tmp_path):
    file = tmp_path / "gateway.key"
    told = CliRunner().invoke(main, ["keys", "generate", str(file)])
    made = PrivateKey.from_hex(file.read_text())
    assert told.output == f"address: {address_of(made.public_key)}\npublicKey: {made.public_key.hex()}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    again = CliRunner().invoke(main, ["keys", "generate", str(file)])
    assert (again.exit_code, "File exists" in again.output) == (1, True)
    assert PrivateKey.from_hex(file.read_text()).public_key == made.public_key


@pytest.mark.parametrize("command", ["address", "seal"])
@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"0" * (1 << 20) + b"0", b"no key"])
def test_a_file_that_is_no_key_is_named_without_a_traceback(tmp_path, command, content):
    file = tmp_path / "key"
    file.write_bytes(content)
    sealing = ["--public-key", "A" * 43 + "=", "--namespace", "ns", "--name", "alice"]
    done = CliRunner().invoke(main, ["keys", command, "--key-file", str(file), *(sealing if command == "seal" else [])])
    assert (done.exit_code, "Error: " in done.output, "Traceback" in done.output) == (1, True, False)


@pytest.mark.parametrize("text", ["A" * 400, "\x00", "key"])
def test_what_is_no_sealing_key_is_refused_with_the_remedy(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key").write_bytes(b"\xff\xfe")
    done = CliRunner().invoke(
        main, ["keys", "seal", "--public-key", text, "--namespace", "ns", "--name", "alice"], input=KEY
    )
    assert (done.exit_code, "Error: " in done.output) == (1, True)
