import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pocket.coordination.file_lock import FileLock, LockHeld
from pocket.errors import ConfigurationError
from pocket.runtime.program import require_writable, run_program
from pocket_miner.storage.audit import Audit, AuditError
from pocket_miner.storage.outcomes import OutcomeRecord


async def ends(error=None):
    if error is not None:
        raise error


def test_known_errors_become_one_sentence_and_exit_78(capsys):
    assert run_program("p", ends()) == 0
    assert run_program("p", ends(ConfigurationError("p: wrong, do this"))) == 78
    assert capsys.readouterr().err == "p: wrong, do this\n"
    nested = ExceptionGroup("g", [ConfigurationError("one"), ExceptionGroup("h", [ConfigurationError("two")])])
    assert run_program("p", ends(nested)) == 78
    assert capsys.readouterr().err == "p: one; two\n"


@pytest.mark.processes
def test_a_program_and_its_children_leave_no_core_dump_with_keys_in_it():
    script = """
import os, resource, subprocess, sys
from pocket.runtime.program import require_writable, run_program
async def main():
    child = subprocess.check_output(["sh", "-c", "ulimit -c"], text=True).strip()
    print(child, resource.getrlimit(resource.RLIMIT_CORE))
run_program("p", main())
"""
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert shown == "0 (0, 0)\n"


def test_a_data_folder_that_cannot_be_written_to_is_refused_with_who_must_be_able_to(tmp_path):
    require_writable("miner", tmp_path / "data" / "below")
    assert list((tmp_path / "data" / "below").iterdir()) == []
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc")):
        with pytest.raises(ConfigurationError, match=rf"miner: {folder}: .*User {os.getuid()} must be able to write"):
            require_writable("miner", folder)


def test_a_full_volume_is_no_reason_to_refuse(tmp_path, monkeypatch):
    def full(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    require_writable("miner", tmp_path)


def test_unknown_errors_stay_visible():
    with pytest.raises(ZeroDivisionError):
        run_program("p", ends(ZeroDivisionError()))
    with pytest.raises(ExceptionGroup):
        run_program("p", ends(ExceptionGroup("g", [ConfigurationError("one"), ValueError("x")])))


def outcome(number):
    return OutcomeRecord("s", f"id{number}", "settled", "SETTLED", "paid", number, {"upokt": number})


def test_every_session_has_exactly_one_outcome_and_alterations_are_found(tmp_path):
    audit = Audit(tmp_path / "a.sqlite")
    assert all(audit.record(outcome(i)) for i in range(3))
    assert not audit.record(outcome(1))
    assert [row["height"] for row in audit.outcomes()] == [0, 1, 2]
    assert audit.outcome("s", "none") is None
    audit._database.execute("UPDATE outcome SET body=replace(body, '\"upokt\":1', '\"upokt\":9') WHERE number=2")
    with pytest.raises(AuditError, match="entry 2"):
        audit.outcomes()
    audit.close()


def test_a_volume_remembers_under_which_epoch_each_shard_was_acted_on(tmp_path):
    audit = Audit(tmp_path / "a.sqlite")
    assert audit.epoch(3) == 0
    audit.save_epoch(3, 7)
    audit.save_epoch(4, 1)
    audit.close()
    again = Audit(tmp_path / "a.sqlite")
    assert (again.epoch(3), again.epoch(4), again.epoch(5)) == (7, 1, 0)
    again.close()


def test_a_folder_has_one_owner_and_the_second_is_told_which(tmp_path):
    with FileLock(tmp_path / "lock"), pytest.raises(LockHeld, match="held by process"):
        FileLock(tmp_path / "lock").acquire()
    with FileLock(tmp_path / "lock"):
        pass
