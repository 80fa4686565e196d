"""Options refuse ports that no socket has and names that no API server takes."""

import pytest
from click.testing import CliRunner

from relayctl.main import main
from world import address, key

NAMES = ("A B", "a_b", "-a", "a-", "", "a" * 254, "a..b", "a\nb", "ä")


@pytest.mark.parametrize("port", ["-1", "65536", "99999999"])
@pytest.mark.parametrize(
    ("words", "smallest"),
    [
        (("localnet", "up", "--grpc-port"), 0), (("localnet", "up", "--rpc-port"), 0), (("console", "--port"), 0),
        (("signer", "serve", "--port"), 1), (("signer", "serve", "--admin-port"), 1),
    ],
)  # fmt: skip
def test_a_port_that_no_socket_has_is_refused(words, smallest, port):
    done = CliRunner().invoke(main, [*words, port])
    assert done.exit_code == 2
    assert f"is not in the range {smallest}<=x<=65535" in done.output


@pytest.mark.parametrize("name", [*NAMES, "a.b", "a" * 64])
def test_a_namespace_that_no_cluster_has_is_refused(tmp_path, name):
    file = tmp_path / "secret.yaml"
    done = CliRunner().invoke(main, ["keys", "sealing-secret", "--namespace", name, str(file)])
    assert done.exit_code == 2
    assert "lower case letters, digits and - inside" in done.output
    assert not file.exists()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("option", ["--name", "--relay-miner"])
def test_a_name_that_no_object_has_is_refused(option, name):
    done = CliRunner().invoke(
        main,
        ["keys", "seal", "--public-key", "x", "--namespace", "a-1", "--name", "a.b-c", option, name],
        input=f"{key('alice').scalar:064x}",
    )
    assert done.exit_code == 2
    assert "lower case letters, digits and - inside" in done.output


def test_a_key_that_is_too_short_is_named_without_it():
    done = CliRunner().invoke(main, ["keys", "address"], input="abcde")
    expected = "Error: a private key is written as 64 hex digits, this one has 5 characters\n"
    assert (done.exit_code, done.output) == (1, expected)


@pytest.mark.parametrize("prefix", ["a[b]c", "a?", "a\\b", "a*", ""])
def test_a_prefix_with_characters_of_patterns_is_refused(prefix):
    done = CliRunner().invoke(main, ["redis", "acl", "--prefix", prefix])
    assert done.exit_code == 1
    assert "Redis key prefix" in done.output


@pytest.mark.parametrize(
    "value", ["", "pokt1bad", "alice", address("alice")[:-1] + "b", "cosmos" + address("alice")[4:]]
)
@pytest.mark.parametrize(
    ("command", "option"),
    [("relay send", "--app"), ("relay load", "--supplier"), ("relay session", "--app"), ("stake plan", "--signer")],
)
def test_an_address_that_no_node_takes_is_refused_before_a_node_is_asked(command, option, value):
    words = [*command.split(), option, value, *(["-f", __file__] if command == "stake plan" else [])]
    needed = {
        "--grpc": "grpc://127.0.0.1:1",
        "--url": "http://127.0.0.1:1",
        "--app": address("bob"),
        "--service": "eth",
    }
    taken = {name for row in found(command).params for name in row.opts}
    words += [part for name in sorted(set(needed) & taken - {option}) for part in (name, needed[name])]
    done = CliRunner().invoke(main, words + (["--key-file", __file__] if "--key-file" in taken else []))
    assert done.exit_code == 2
    assert f"Invalid value for '{option}'" in done.output


def found(command):
    """Return the command of a line of words."""
    group = main
    for word in command.split():
        group = group.commands[word]
    return group
