"""Commands that take long show how far they are, on terminals only."""

import io
import sys

from click.testing import CliRunner

from pocket_miner.console import ledger_commands
from pocket_miner.console.ledger_commands import ledger
from pocket_miner.console.progress import progress
from pocket_miner.storage.audit import Audit
from pocket_miner.storage.outcomes import OutcomeRecord


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_bar_that_ends_at_the_total(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress("Copying", 40) as advance:
        for _ in range(4):
            advance(10)
    assert "Copying" in sys.stderr.getvalue()
    assert "100%" in sys.stderr.getvalue()


def test_a_pipe_gets_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress("Copying", 40) as advance:
        advance(40)
    assert sys.stderr.getvalue() == ""


def test_a_backup_reports_all_bytes_that_it_copied(tmp_path, monkeypatch):
    data, told = tmp_path / "data", []
    audit = Audit(data / "audit.sqlite")
    audit.record(OutcomeRecord("pokt1a", "s", "settled", "SETTLED", "", 9, {}))
    audit.close()

    class Noted:
        def __init__(self, label, total):
            self.total = total

        def __enter__(self):
            return told.append

        def __exit__(self, *_):
            assert sum(told) == self.total > 0

    monkeypatch.setattr(ledger_commands, "progress", Noted)
    run = CliRunner().invoke(ledger, ["backup", "--data", str(data), str(tmp_path / "copy")])
    assert run.output == f"1 files in {tmp_path / 'copy'}\n"
    assert len(told) == 1
