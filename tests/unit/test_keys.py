import json

import pytest

from pocket.errors import ConfigurationError
from pocket.keys.loading import load_keys_directory, load_keys_environment, load_keys_file, load_supplier_keys, merge
from world import address, key


def secret(name):
    return f"{key(name).scalar:064x}"


def test_the_keys_file_loads_good_entries_and_reports_bad_ones_by_position(tmp_path):
    file = tmp_path / "keys.yaml"
    bad = "12" * 31
    file.write_text(f'keys:\n  - "{secret("alice")}"\n  - "{bad}"\n  - "0x{secret("bob")}"\n  - 5\n')
    loaded = load_keys_file(file)
    assert set(loaded.keys) == {address("alice"), address("bob")}
    shown = " ".join(map(str, loaded.problems))
    assert "entry 2" in shown
    assert "entry 4" in shown
    assert bad not in shown


def test_a_directory_holds_yaml_json_and_bare_keys_and_compares_addresses(tmp_path):
    (tmp_path / "a.yaml").write_text(f'operator_address: {address("alice")}\nprivate_key_hex: "{secret("alice")}"\n')
    (tmp_path / "b.json").write_text(
        json.dumps({"operator_address": address("bob"), "private_key_hex": secret("carol")})
    )
    (tmp_path / address("dave")).write_text(secret("dave") + "\n")
    (tmp_path / "c.yaml").write_text("{broken")
    (tmp_path / "d.yaml").write_text("x: 1")
    (tmp_path / ".hidden").write_text("no key")
    (tmp_path / address("eve")).write_bytes(b"\xff\xfe")
    loaded = load_keys_directory(tmp_path)
    assert set(loaded.keys) == {address("alice"), address("dave")}
    shown = " ".join(map(str, loaded.problems))
    assert "does not match the key" in shown
    for name in ("alice", "carol", "dave"):
        assert secret(name) not in shown + repr(loaded)


def test_environment_and_merge_report_repetitions():
    first = load_keys_environment({"POCKET_SUPPLIER_KEY_1": secret("alice"), "OTHER": "x"})
    second = load_keys_environment({"POCKET_SUPPLIER_KEY": secret("alice"), "POCKET_SUPPLIER_KEY_2": "zz"})
    both = merge([first, second])
    assert set(both.keys) == {address("alice")}
    assert len(both.problems) == 2
    assert both.digest == first.digest != merge([]).digest


@pytest.mark.parametrize("content", ["keys: 5", "[]", "keys", "a: [", b"\xff\xfe\xff"])
def test_files_that_are_none_are_refused_without_quoting_them(tmp_path, content):
    file = tmp_path / "keys.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigurationError) as caught:
        load_keys_file(file)
    assert str(file) in str(caught.value)


def test_missing_or_huge_files_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="No such file"):
        load_keys_file(tmp_path / "none")
    with pytest.raises(ConfigurationError, match="not a folder"):
        load_keys_directory(tmp_path / "none")
    huge = tmp_path / "huge"
    huge.write_bytes(b" " * (4 * 1024 * 1024 + 1))
    with pytest.raises(ConfigurationError, match="larger"):
        load_keys_file(huge)


def test_a_keys_file_of_the_reference_may_lie_in_the_folder_and_variables_add_to_it(tmp_path):
    (tmp_path / "supplier-keys.yaml").write_text(f'keys: ["{secret("alice")}", "{secret("bob")}", "nonsense"]\n')
    loaded = load_supplier_keys(tmp_path, {"POCKET_SUPPLIER_KEY": secret("carol")})
    assert set(loaded.keys) == {address("alice"), address("bob"), address("carol")}
    assert "entry 3" in str(loaded.problems[0])


@pytest.mark.parametrize(("mode", "told"), [(0o600, False), (0o440, False), (0o644, True)])
def test_a_key_file_that_anybody_may_read_is_loaded_and_named(tmp_path, mode, told):
    path = tmp_path / address("alice")
    path.write_text(secret("alice"))
    path.chmod(mode)
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    loaded = load_supplier_keys(tmp_path, {})
    assert set(loaded.keys) == {address("alice")}
    assert [str(problem) for problem in loaded.problems] == (
        [f"{path}: any user of this machine may read this file: chmod 600"] if told else []
    )
