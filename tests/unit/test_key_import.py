"""Keys of keyrings and armored exports that the chain's own node wrote, and of mnemonics (tests/vectors/keyrings)."""

import base64
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from example_counts import examples
from pocket.keys.loading import load_keys_file
from pocket.keys.sealed_box import Controller, Subject
from relayctl.key_commands import keys
from relayctl.key_import.armored_key import read_armored
from relayctl.key_import.cosmos_keyring import keyring_folder, read_keyring
from relayctl.key_import.import_errors import KeyImportError, library
from relayctl.key_import.mnemonic_key import COSMOS_PATH, derive, following, parse_path, read_mnemonic, seed_of
from relayctl.key_import.secret_service import read_secret_service

FOLDER = Path(__file__).resolve().parents[1] / "vectors/keyrings"
TWELVE = " ".join(["abandon"] * 11 + ["about"])
TWENTY_FOUR = " ".join(["abandon"] * 23 + ["art"])
# As `pocketd keys export --unarmored-hex` and `keys add` printed them.
FIRST = (
    "c4a48e2fce1481cd3294b4490f6678090ea98d3d0e5cd984558ab0968741b104",
    "pokt19rl4cm2hmr8afy4kldpxz3fka4jguq0apxjfrd",
)
SECOND = (
    "a04f2629abe624b29a7954171d45fcfac8f33303041e188be7e6dc599edaaee7",
    "pokt13s825rdr6wlxrq58zk85kwvyjyze873md6xye2",
)
THIRD = (
    "560b693f54395f795361ed2b042412a1f6fee2a28a58bdde3c1f719f4e138ef8",
    "pokt1kjnlaar8npevnjz85e5tnruk3skrtc8xyyxcq3",
)
LONG = "x" * 100


def digits(found):
    return {f"{key.scalar:064x}": str(address) for address, key in found.items()}


def test_all_keys_of_a_test_keyring_that_are_on_this_machine_are_read():
    assert digits(read_keyring(FOLDER / "keyring-test", "test").keys) == dict([FIRST, SECOND, THIRD])


def test_named_keys_only_are_read():
    assert digits(read_keyring(FOLDER / "keyring-test", "test", ["second"]).keys) == dict([SECOND])


def test_a_file_keyring_opens_with_its_passphrase_alone():
    assert digits(read_keyring(FOLDER / "keyring-file", "filepassword").keys) == dict([FIRST])
    with pytest.raises(KeyImportError, match="passphrase is wrong") as error:
        read_keyring(FOLDER / "keyring-file", "hunter2")
    assert "hunter2" not in str(error.value)


def test_the_backend_os_of_a_machine_without_a_desktop_is_files_in_the_home_folder():
    assert keyring_folder(FOLDER / "home-os") == FOLDER / "home-os"
    assert digits(read_keyring(FOLDER / "home-os", "ospassword").keys) == dict([FIRST])


@pytest.mark.parametrize(("name", "why"), [("watcher", "has a public key only"), ("both", "is a multisig account")])
def test_a_named_key_without_private_part_is_an_error(name, why):
    with pytest.raises(KeyImportError, match=why):
        read_keyring(FOLDER / "keyring-test", "test", [name])


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(KeyImportError, match=r"no key fourth\. There are: both, first, second, third, watcher"):
        read_keyring(FOLDER / "keyring-test", "test", ["fourth"])


def test_the_keyring_is_found_in_a_home_folder(tmp_path):
    assert keyring_folder(FOLDER) == FOLDER / "keyring-file"
    assert keyring_folder(FOLDER / "keyring-test") == FOLDER / "keyring-test"
    with pytest.raises(KeyImportError, match="pocketd keys export"):
        keyring_folder(tmp_path)


def test_the_keyring_of_a_home_folder_is_the_one_that_has_the_named_keys():
    assert keyring_folder(FOLDER, ["second", "third"]) == FOLDER / "keyring-test"
    assert keyring_folder(FOLDER, ["nowhere"]) == FOLDER / "keyring-file"


def test_a_name_may_have_characters_that_no_file_name_has(tmp_path):
    """The node writes the key `a/b%` to `a%2Fb%25.info`."""
    shutil.copy(FOLDER / "keyring-test/first.info", tmp_path / "a%2Fb%25.info")
    assert digits(read_keyring(tmp_path, "test", ["a/b%"]).keys) == dict([FIRST])


def test_what_is_not_imported_is_named(tmp_path):
    done = run("keyring", FOLDER / "keyring-test", "-o", tmp_path / "keys.yaml")
    assert done.exit_code == 0, done.output
    assert "skipped both: it is a multisig account" in done.stderr
    assert "skipped watcher: it has a public key only" in done.stderr
    done = run("keyring", FOLDER, "--name", "second", "-o", tmp_path / "key", "--form", "hex")
    assert done.exit_code == 0, done.output
    assert f"not from {FOLDER / 'keyring-file'}" in done.stderr


def test_keys_are_never_written_to_a_file_named_like_standard_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("mnemonic", "-o", "-", text=f"{TWELVE}\n")
    assert done.exit_code == 1
    assert "never to standard output" in done.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.processes
def test_a_full_disk_leaves_no_part_of_a_key_file(tmp_path):
    """A limit of the file's size stands for the disk's."""
    code = (
        "import resource, signal, sys; from pathlib import Path; from relayctl.key_files import write_for_owner\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "write_for_owner(Path(sys.argv[1]), 'x' * 64)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "key")], capture_output=True, text=True, check=False
    )
    assert "ClickException" in done.stderr
    assert "File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["", "a.b.c.d.e", "x" * 50, "\xff"])
def test_a_damaged_key_file_is_an_error(tmp_path, damage):
    whole = (FOLDER / "keyring-test/first.info").read_text()
    texts = [damage, whole[:-3], whole[:400] + ("A" if whole[400] != "A" else "B") + whole[401:]]
    for text in texts:
        (tmp_path / "one.info").write_text(text, encoding="latin-1")
        with pytest.raises(KeyImportError):
            read_keyring(tmp_path, "test")


@pytest.mark.parametrize(
    ("file", "passphrase"), [("argon2", "longpassword"), ("bcrypt", "longpassword"), ("bcrypt-long", LONG)]
)
def test_armored_keys_of_both_derivations_are_decrypted(file, passphrase):
    text = (FOLDER / f"{file}.armor").read_text()
    assert f"{read_armored(text, passphrase).scalar:064x}" == FIRST[0]
    assert f"{read_armored(text.replace(chr(10), chr(13) + chr(10)), passphrase).scalar:064x}" == FIRST[0]
    with pytest.raises(KeyImportError, match="passphrase of the armored key is wrong"):
        read_armored(text, "another")


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("kdf: argon2", "kdf: scrypt", "scrypt is unknown"),
        ("type: secp256k1", "type: ed25519", "of type ed25519"),
        ("salt: DF", "salt: ", "no salt of 16 bytes"),
        ("salt: DF", "salt: zz", "damaged"),
        ("PRIVATE", "PUBLIC", "no armored key"),
        ("wZlH", "wZlI", "wrong, or its text is damaged"),
    ],
)
def test_a_damaged_armored_text_says_what_is_wrong(old, new, why):
    text = (FOLDER / "argon2.armor").read_text().replace(old, new)
    with pytest.raises(KeyImportError, match=why):
        read_armored(text, "longpassword")


@pytest.mark.parametrize(
    ("words", "path", "expected"),
    [
        (TWELVE, COSMOS_PATH, FIRST),
        (f"  {TWELVE.upper()}\n", COSMOS_PATH, FIRST),
        (TWELVE, "m/44'/118'/1'/0/2", SECOND),
        (TWENTY_FOUR, "m/44'/118'/3'/0/7", THIRD),
    ],
)
def test_a_mnemonic_gives_the_node_s_keys(words, path, expected):
    assert digits(read_mnemonic(words, iter([path]))) == dict([expected])


def test_the_seed_is_that_of_bip_39_with_and_without_passphrase():
    assert seed_of(TWELVE, "TREZOR").hex().startswith("c55257c360c07c72029aebc1b53c05ed0362ada38ead3e3e")
    assert seed_of(TWELVE).hex().startswith("5eb00bbddcf069084889a8ab9155568165f5c453ccb85e70811aaed6f6da5fc1")


@pytest.mark.parametrize(
    ("path", "key"),
    [  # BIP-32, test vector 1
        ("m/0'", "edb2e14f9ee77d26dd93b4ecede8d16ed408ce149b6cd80b0715a2d911a0afea"),
        ("m/0'/1", "3c6cb8d0f6a264c91ea8b5030fadaa8e538b020f0a387421a12de9319dc93368"),
        ("m/0'/1/2'/2/1000000000", "471b76e389e528d6de6d816857e012c5455051cad6660850e58372a6c3e6e7c8"),
    ],
)
def test_derivation_is_that_of_bip_32(path, key):
    assert f"{derive(bytes.fromhex('000102030405060708090a0b0c0d0e0f'), path).scalar:064x}" == key


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("abandon " * 11, "has 11"),
        (TWELVE.replace("about", "abandon"), "checksum"),
        (TWELVE.replace("about", "secretword"), "word 12 of"),
    ],
)
def test_wrong_words_are_refused_without_repeating_them(words, why):
    with pytest.raises(KeyImportError, match=why) as error:
        seed_of(words)
    assert "secretword" not in str(error.value)
    assert "abandon" not in str(error.value)


@pytest.mark.parametrize("path", ["", "m", "44'/118'", "m/44h", "m/-1", "m/2147483648", "m/1/", "m/١"])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(KeyImportError):
        parse_path(path)


@settings(max_examples=examples(25))
@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text):
    for read in (lambda: read_armored(text, "p"), lambda: seed_of(text), lambda: parse_path(text)):
        try:
            read()
        except KeyImportError:
            continue


def test_following_paths_count_on():
    assert list(following("m/44'/118'/0'/0/8", 3)) == [f"m/44'/118'/0'/0/{n}" for n in (8, 9, 10)]
    assert list(following("m/5'", 2)) == ["m/5'", "m/6'"]


def run(*words, text="", **options):
    return CliRunner().invoke(keys, ["import", *map(str, words)], input=text, **options)


def test_the_command_writes_secrets_and_suppliers_for_their_owner_alone(tmp_path):
    out = tmp_path / "keys.yaml"
    done = run("keyring", FOLDER / "keyring-test", "-o", out, "--relay-miner", "main", "--namespace", "team")
    assert done.exit_code == 0, done.output
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    documents = list(yaml.safe_load_all(out.read_text()))
    found = {row["stringData"]["hex"] for row in documents if row["kind"] == "Secret"}
    assert found == {FIRST[0], SECOND[0], THIRD[0]}
    suppliers = {row["spec"]["operatorAddress"]: row for row in documents if row["kind"] == "Supplier"}
    assert set(suppliers) == {FIRST[1], SECOND[1], THIRD[1]}
    reference = suppliers[FIRST[1]]["spec"]["key"]["secretRef"]["name"]
    assert [r["stringData"]["hex"] for r in documents if r["metadata"]["name"] == reference] == [FIRST[0]]
    assert not any(secret in done.output for secret in found)
    again = run("keyring", FOLDER / "keyring-test", "-o", out)
    assert again.exit_code == 1
    assert "File exists" in again.output


def test_sealed_keys_open_for_their_supplier_alone(tmp_path):
    controller = Controller.generate()
    public = base64.b64encode(Controller.of([controller]).newest).decode()
    out = tmp_path / "s.yaml"
    words = ["mnemonic", "-o", out, "--form", "sealed", "--relay-miner", "main", "--public-key", public]
    done = run(*words, "--namespace", "team", text=f"{TWELVE}\n")
    assert done.exit_code == 0, done.output
    (one,) = yaml.safe_load_all(out.read_text())
    subject = Subject("team", one["metadata"]["name"], FIRST[1])
    assert Controller.of([controller]).open(one["spec"]["key"]["sealed"], subject) == FIRST[0]
    assert FIRST[0] not in out.read_text()
    assert run(*words[:-2], text=TWELVE).exit_code == 1  # without the public key


def test_a_keys_file_is_one_that_workloads_load(tmp_path):
    out = tmp_path / "keys.yaml"
    done = run("mnemonic", "--count", 3, "-o", out, "--form", "keys-file", text=f"{TWELVE}\n")
    assert done.exit_code == 0, done.output
    assert sorted(load_keys_file(out).keys) == sorted(done.stdout.split()[:3])
    assert len(load_keys_file(out).keys) == 3
    assert run("mnemonic", "--count", 2, "-o", tmp_path / "h", "--form", "hex", text=f"{TWELVE}\n").exit_code == 1


@pytest.mark.parametrize("through", ["stdin", "descriptor"])
def test_a_passphrase_comes_from_standard_input_or_a_descriptor(tmp_path, through):
    out = tmp_path / "key"
    words = ["armor", FOLDER / "argon2.armor", "-o", out, "--form", "hex"]
    if through == "stdin":
        done = run(*words, text="longpassword\n")
    else:
        reading, writing = os.pipe()
        os.write(writing, b"longpassword\n")
        os.close(writing)
        done = run(*words, "--passphrase-fd", reading)
        os.close(reading)
    assert done.exit_code == 0, done.output
    assert out.read_text() == f"{FIRST[0]}\n"


def test_no_passphrase_is_an_error(tmp_path):
    done = run("armor", FOLDER / "argon2.armor", "-o", tmp_path / "key")
    assert done.exit_code == 1
    assert "Passphrase of the armored key: empty" in done.output
    assert not (tmp_path / "key").exists()


def test_a_missing_library_names_what_to_install():
    with pytest.raises(KeyImportError, match=r"no_such_library is not installed.*extra `keys`"):
        library("no_such_library.part")


@pytest.fixture
def secret_tool(tmp_path):
    """Return a program that prints what `secret-tool` printed of a GNOME Keyring with keys of `pocketd keys`."""
    program = tmp_path / "bin/secret-tool"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\n[ "$#" = 3 ] && [ "$1 $2 ${3#*.}" = "lookup profile info" ] || { echo "usage" >&2; exit 2; }\n'
        f'exec cat "{FOLDER}/secret-service/${{3%.info}}.json"\n'
    )
    program.chmod(0o755)
    return program


@pytest.mark.processes
def test_keys_of_a_desktop_are_read_through_its_secret_service(tmp_path, secret_tool, monkeypatch):
    assert digits(read_secret_service(["first"], str(secret_tool))) == dict([FIRST])
    monkeypatch.setenv("PATH", str(secret_tool.parent), prepend=os.pathsep)
    out = tmp_path / "key"
    done = run("secret-service", "--name", "first", "-o", out, "--form", "hex")
    assert (done.exit_code, out.read_text()) == (0, f"{FIRST[0]}\n")
    assert FIRST[0] not in done.output


@pytest.mark.processes
def test_a_key_that_a_desktop_does_not_give_says_why(tmp_path, secret_tool):
    with pytest.raises(
        KeyImportError, match=r"no key fourth in the desktop's keyring, or it is locked: .*No such file"
    ):
        read_secret_service(["first", "fourth"], str(secret_tool))
    with pytest.raises(KeyImportError, match="key watcher of the desktop's keyring: the key has a public key only"):
        read_secret_service(["watcher"], str(secret_tool))
    with pytest.raises(KeyImportError, match=r"is not installed.*libsecret-tools"):
        read_secret_service(["first"], str(tmp_path / "none"))
    secret_tool.write_text("#!/bin/sh\necho '{}'\n")
    with pytest.raises(KeyImportError, match="not a record of a current keyring"):
        read_secret_service(["first"], str(secret_tool))
