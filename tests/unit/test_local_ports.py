"""Ports for programs of one machine: no two get the same one."""

import socket
import subprocess
import sys

import pytest

from pocket.errors import ConfigurationError
from relayctl import local_ports
from relayctl.local_ports import free_port, free_ports


@pytest.fixture
def eight_ports(monkeypatch):
    """Reserve among eight ports only, so that callers meet."""
    first = free_ports(8)
    for port in range(first, first + 8):
        local_ports._release(port)
    monkeypatch.setattr(local_ports, "_FIRST", first)
    monkeypatch.setattr(local_ports, "_LAST", first + 7)
    return range(first, first + 8)


def test_each_call_returns_another_port_until_none_is_left(eight_ports):
    assert {free_port() for _ in eight_ports} == set(eight_ports)
    with pytest.raises(ConfigurationError, match="stop programs that listen there"):
        free_port()


@pytest.mark.processes
def test_a_port_reserved_by_another_process_is_not_returned(eight_ports):
    program = (
        "from relayctl import local_ports\n"
        f"local_ports._FIRST, local_ports._LAST = {eight_ports[0]}, {eight_ports[-1]}\n"
        "print(local_ports.free_ports(7), flush=True)\ninput()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        taken = int(other.stdout.readline())
        left = set(eight_ports) - set(range(taken, taken + 7))
        assert {free_port()} == left
        other.stdin.close()
        other.wait(timeout=10)
    # What that process reserved is free again.
    assert free_ports(7) == taken


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_port_on_which_a_program_listens_is_not_returned(eight_ports, host):
    with socket.create_server((host, eight_ports[3])):
        assert {free_port() for _ in range(7)} == set(eight_ports) - {eight_ports[3]}
        with pytest.raises(ConfigurationError):
            free_port()


def test_ports_in_a_row_that_are_not_all_free_are_given_back(eight_ports):
    with socket.create_server(("127.0.0.1", eight_ports[3])):
        assert free_ports(4) == eight_ports[4]
        assert free_ports(3) == eight_ports[0]
