"""The command line: errors of files and connections in words, and help in the order of reading."""

import contextlib
import socket
import ssl
import sys
from pathlib import Path

import aiohttp
import click
import pytest
from click.testing import CliRunner

from pocket.errors import system_reason
from pocket.runtime.version import VERSION
from relayctl import main as command_line
from relayctl.k8s import plugin
from relayctl.main import main


async def failure(url):
    async with aiohttp.ClientSession() as http:
        try:
            await http.get(url)
        except aiohttp.ClientError as error:
            return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError(2, "Datei", "a"), "No such file or directory"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (TimeoutError(), "no answer in time"), (TimeoutError(110, "x"), "Connection timed out"),
        (OSError("Multiple exceptions"), "Multiple exceptions"), (ConnectionResetError(), "ConnectionResetError"),
        (ssl.SSLCertVerificationError(1, "certificate verify failed"), "certificate verify failed"),
    ],
)  # fmt: skip
def test_errors_of_files_and_connections_are_told_in_words(error, words):
    assert system_reason(error) == words


async def test_a_refused_connection_is_told_in_words():
    assert system_reason(await failure("http://127.0.0.1:1")) == "Connection refused"


@pytest.mark.parametrize("program", [command_line.run, plugin.main])
def test_an_output_that_cannot_be_written_ends_in_words(monkeypatch, program):
    monkeypatch.setattr(command_line.logs, "configure", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["program", "--help"])
    with contextlib.suppress(OSError), Path("/dev/full").open("w") as full:  # closing it writes once more
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit, match="Error: output: No space left on device"):
            program()
    monkeypatch.undo()


def test_the_version_is_an_option_too():
    assert f"relayctl {VERSION}, commit" in CliRunner().invoke(main, ["--version"]).output


def test_a_file_descriptor_that_is_not_open_is_told_in_words(tmp_path):
    words = ["keys", "import", "mnemonic", "--mnemonic-fd", "999999", "-o", str(tmp_path / "keys")]
    assert "file descriptor 999999: Bad file descriptor" in CliRunner().invoke(main, words).output


@pytest.mark.parametrize(
    ("group", "command", "first"),
    [("relay", "send", "--url"), ("relay", "load", "--url"), ("stake", "plan", "--file"), ("stake", "send", "--grpc"),
     ("", "console", "--miner"), ("", "top", "--miner")],
)  # fmt: skip
def test_help_begins_with_the_options_that_matter(group, command, first):
    commands = main.commands[group].commands if group else main.commands
    options = [row.opts for row in commands[command].params if isinstance(row, click.Option)]
    assert first in options[1 if command == "send" and group == "stake" else 0]


def groups(group, path=()):
    """Yield the words of every group of commands."""
    yield path
    with click.Context(group) as context:
        commands = {name: group.get_command(context, name) for name in group.list_commands(context)}
    for name, command in commands.items():
        if isinstance(command, click.Group):
            yield from groups(command, (*path, name))


def test_no_list_of_commands_cuts_what_a_command_does():
    found = list(groups(main))
    assert len(found) > 10
    for path in found:
        listed = CliRunner().invoke(main, [*path, "--help"]).output.partition("Commands:")[2]
        assert "..." not in listed, (path, listed)
