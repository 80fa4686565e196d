import io
import json
import logging
import sys

import pytest
import structlog
from structlog.contextvars import bound_contextvars

from pocket.errors import ConfigurationError
from pocket.runtime import logs


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def configured(monkeypatch):
    """Configure logs as a program does, into a file in memory. Returns what was written as lines."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    made = []

    def configure(output=None, level="INFO"):
        made.append(output or io.StringIO())
        monkeypatch.setattr(sys, "stderr", made[-1])
        logs.configure("miner", level)
        return lambda: [json.loads(line) for line in made[-1].getvalue().splitlines()]

    yield configure
    logs.set_level("INFO")
    root.handlers[:] = handlers
    root.setLevel(level)
    logs.use_safe_defaults()


def test_an_event_is_one_line_of_json_with_its_fields_and_context(configured):
    rows = configured()
    with bound_contextvars(supplier="pokt1a"):
        structlog.get_logger().info("claims sent", claims=3, tx="AB")
    structlog.get_logger().warning("Redis unavailable", error=ConnectionError())
    first, second = rows()
    assert list(first) == ["time", "level", "component", "event", "claims", "tx", "supplier"]
    assert first | {"time": ""} == {
        "time": "", "level": "info", "component": "miner", "event": "claims sent", "claims": 3, "tx": "AB",
        "supplier": "pokt1a",
    }  # fmt: skip
    assert first["time"].endswith("Z")
    assert (second["level"], second["error"]) == ("warning", "ConnectionError")


def test_libraries_write_the_same_lines(configured):
    rows = configured()
    logging.getLogger("aiohttp.client").warning("lost %s", "it")
    logging.getLogger("aiohttp.access").info("GET /")
    logging.getLogger("kopf.x").info("noise")
    (row,) = rows()
    assert (row["level"], row["component"], row["event"]) == ("warning", "miner", "lost it")


@pytest.mark.parametrize("make", [logging.getLogger, structlog.get_logger])
def test_an_exception_shows_type_and_place_but_never_values(configured, make):
    rows = configured()
    try:
        raise ValueError("a secret value")
    except ValueError:
        make("x").exception("relay failed")
    (row,) = rows()
    assert row["error_type"] == "ValueError"
    assert row["at"].startswith("test_logs.py:")
    assert "secret value" not in json.dumps(row)


def test_a_process_that_configured_nothing_shows_no_values_of_a_traceback(capsys):
    try:
        raise ValueError("a secret value")
    except ValueError:
        structlog.get_logger().exception("import failed")
    written = capsys.readouterr()
    assert written.out == ""
    assert json.loads(written.err)["error_type"] == "ValueError"
    assert "secret value" not in written.err


def test_a_failed_task_shows_type_and_place(configured):
    rows = configured()
    structlog.get_logger().error("background task failed", exc_info=ZeroDivisionError("a secret value"))
    (row,) = rows()
    assert row["error_type"] == "ZeroDivisionError"
    assert "secret value" not in json.dumps(row)


@pytest.mark.parametrize("name", ["private_key", "secret", "password", "redis_password", "api_token", "mnemonic"])
def test_fields_named_as_secrets_show_nothing(configured, name):
    rows = configured()
    structlog.get_logger().info("loaded", **{name: "hunter2"}, nested={name: "hunter2"})
    assert rows()[0][name] == rows()[0]["nested"][name] == "[redacted]"


def test_values_show_neither_credentials_nor_bytes(configured):
    rows = configured()
    error = ConfigurationError("no answer from rediss://user:hunter2@redis:6379/0")
    structlog.get_logger().info("redis://user:hunter2@h", error=error, url="http://u:hunter2@n/x", key=b"hunter2")
    (row,) = rows()
    assert "hunter2" not in json.dumps(row)
    assert (row["url"], row["key"]) == ("http://n/x", "[7 bytes]")


def test_the_level_changes_at_run_time_for_loggers_in_use(configured):
    rows = configured()
    ours, library = structlog.get_logger(), logging.getLogger("library")
    ours.debug("a")
    library.debug("b")
    logs.set_level("debug")
    ours.debug("c")
    library.debug("d")
    logs.set_level("ERROR")
    ours.warning("e")
    library.warning("f")
    assert [row["event"] for row in rows()] == ["c", "d"]


def test_a_terminal_gets_readable_lines(configured):
    output = Terminal()
    configured(output)
    structlog.get_logger().info("serving", port=8545)
    assert "serving" in output.getvalue()
    assert "port" in output.getvalue()
    assert "{" not in output.getvalue()
