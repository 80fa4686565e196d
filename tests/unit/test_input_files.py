"""Commands report files that they cannot use with path, problem and remedy, and quote nothing of them."""

import json

import pytest
from click.testing import CliRunner

from pocket.input_files import InputFileError, decoded, json_value, read_yaml
from pocket_miner.storage.audit import Audit
from relayctl.main import main

SECRET = "s3cretword"
DEEP = 500
CONTENTS = {
    "binary": b"\xff\xfe\x00" + SECRET.encode(), "empty": b"", "syntax": f"a: [{SECRET}\n".encode(),
    "list": f"- {SECRET}\n".encode(), "text": SECRET.encode(), "null": b"null\n",
    "tag": f"a: !!python/object/apply:os.system [{SECRET}]\n".encode(), "alias": f"a: *{SECRET}\n".encode(),
    "deep": b"[" * DEEP + b"]" * DEEP, "itself": b"&a [*a]\n", "date": b"a: 2026-13-45\n", "bool": b"a: !!bool x\n",
    "itself in a mapping": b"apiVersion: v1\nkind: Config\ncontexts: &a [*a]\nusers: *a\ncurrent-context: x\n",
    "numbers": b"apiVersion: v1\nkind: Config\ncontexts: 1\nclusters: 2\nusers: 3\ncurrent-context: x\n",
}  # fmt: skip
COMMANDS = (
    ("config", "validate", "FILE"), ("config", "render", "FILE", "-o", "OUT"),
    ("stake", "plan", "-f", "FILE", "--grpc", "grpc://127.0.0.1:1"),
    ("migrate", "--relayer", "FILE", "--output", "OUT"), ("migrate", "--compose", "FILE", "--output", "OUT"),
    ("k8s", "status", "--kubeconfig", "FILE"), ("ledger", "verify", "--data", "VOLUME", "--published", "FILE"),
    ("ledger", "verify", "--archive", "FILE"), ("ledger", "export", "--archive", "FILE"),
    ("ledger", "earnings", "--archive", "FILE"), ("ledger", "seals", "import", "FILE", "--data", "VOLUME"),
)  # fmt: skip


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    folder = tmp_path_factory.mktemp("volume")
    Audit(folder / "audit.sqlite").close()
    return folder


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: " ".join(words[:3]))
@pytest.mark.parametrize("content", sorted(CONTENTS))
def test_a_command_reports_a_file_that_it_cannot_use(tmp_path, volume, command, content):
    if "--published" in command and content == "empty":
        pytest.skip("no published head is no problem")
    file = tmp_path / "given"
    file.write_bytes(CONTENTS[content])
    places = {"FILE": str(file), "OUT": str(tmp_path / "out"), "VOLUME": str(volume)}
    done = CliRunner().invoke(main, [places.get(word, word) for word in command])
    assert isinstance(done.exception, SystemExit), repr(done.exception)
    assert done.exit_code == 1
    assert SECRET not in done.output
    assert done.output.strip()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CONTENTS["binary"], r"given: not text in UTF-8 \(byte 1\)"),
        (b"a: 1\nb: [1\n", r"given: not YAML \(line 3, column 1\)"),
        (CONTENTS["date"], r"given: not YAML \(ValueError\)"), (CONTENTS["bool"], r"given: not YAML \(KeyError\)"),
        (CONTENTS["deep"], "given: nested too deeply"),
    ],
)  # fmt: skip
def test_the_problem_is_named_with_its_place(tmp_path, content, message):
    (tmp_path / "given").write_bytes(content)
    with pytest.raises(InputFileError, match=message):
        read_yaml(tmp_path / "given")


def test_json_is_read_by_the_same_rules():
    assert json_value(decoded(b'{"a": 1}', "x"), "x") == {"a": 1}
    for text, message in (("{", r"x: not JSON \(line 1, column 2\)"), ("[" * 100_000, "x: nested too deeply")):
        with pytest.raises(InputFileError, match=message):
            json_value(text, "x")


@pytest.mark.parametrize("document", [[1], {"a": 1}, {"version": 2, "seals": []}, {"version": 1, "seals": [1]}])
def test_an_import_of_seals_names_the_file(tmp_path, volume, document):
    (tmp_path / "seals.json").write_text(json.dumps(document))
    done = CliRunner().invoke(main, ["ledger", "seals", "import", str(tmp_path / "seals.json"), "--data", str(volume)])
    assert done.exit_code == 1
    assert "seals.json: " in done.output
    assert "indices" not in done.output


@pytest.mark.parametrize("command", [("refused",), ("relays", "abc"), ("verify",), ("export",)])
def test_a_folder_that_is_no_volume_is_an_error_for_all_commands(tmp_path, command):
    done = CliRunner().invoke(main, ["ledger", *command, "--data", str(tmp_path)])
    assert done.exit_code == 1
    assert "the data folder of a miner?" in done.output
    assert list(tmp_path.iterdir()) == []
