"""Options refuse ports that no socket has and names that no API server takes."""

import pytest
from click.testing import CliRunner

from relayctl.main import main
from world import key

NAMES = ("A B", "a_b", "-a", "a-", "", "a" * 254, "a..b", "a\nb", "ä")


@pytest.mark.parametrize("port", ["-1", "65536", "99999999"])
@pytest.mark.parametrize("option", ["--grpc-port", "--rpc-port"])
def test_a_port_that_no_socket_has_is_refused(option, port):
    done = CliRunner().invoke(main, ["localnet", "up", option, port])
    assert done.exit_code == 2
    assert "is not in the range 0<=x<=65535" in done.output


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
