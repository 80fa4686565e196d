"""Archives of audit trails: appended to, verified and read without the volume."""

import json

import pytest
from click.testing import CliRunner

from kubectl_stand_in import kubectl_stand_in
from pocket_miner.console.ledger_commands import ledger
from pocket_miner.storage.audit import Audit, AuditHead
from pocket_miner.storage.outcome_archive import (
    ArchiveError,
    TrailPage,
    append_to_archive,
    missing_heads,
    read_archive,
    trail_page,
)
from pocket_miner.storage.outcomes import OutcomeRecord
from relayctl.k8s.pod_shell import PodShell
from relayctl.k8s.trail_archive import archive_pod, published_heads_of


def outcome(number):
    details = {"session_end_height": number * 10 - 5, "earned_by": {"owner": number}, "service_id": "eth"}
    return OutcomeRecord("pokt1a", f"session {number}", "settled", "SETTLED", "", number * 10, details)


@pytest.fixture
def audit(tmp_path):
    made = Audit(tmp_path / "volume" / "audit.sqlite")
    made.record_all(outcome(number) for number in range(1, 6))
    made.load_head()
    yield made
    made.close()


def archived(audit, folder):
    return append_to_archive(folder, lambda after: trail_page(audit, after))


def test_only_new_outcomes_are_appended_and_the_copy_equals_the_volume(audit, tmp_path):
    first = archived(audit, tmp_path / "archive")
    assert (first.number, first.added) == (5, 5)
    before = first.file.read_bytes()
    audit.record_all(outcome(number) for number in range(6, 9))
    assert archived(audit, tmp_path / "archive").added == 3
    assert first.file.read_bytes().startswith(before)
    assert archived(audit, tmp_path / "archive").added == 0
    assert [entry.outcome() for entry in read_archive(first.file)] == audit.outcomes()
    assert missing_heads(read_archive(first.file), [audit.head]) == []


def test_many_pages_are_read_to_the_end(audit, tmp_path):
    def fetch(after):
        page = trail_page(audit, after)
        return page.model_copy(update={"entries": page.entries[:2]})

    assert append_to_archive(tmp_path / "archive", fetch).added == 5


def test_the_copy_outlives_outcomes_that_retention_deletes(audit, tmp_path):
    file = archived(audit, tmp_path / "archive").file
    audit.record(outcome(6))
    audit.prune(31)
    assert archived(audit, tmp_path / "archive").number == 6
    assert len(read_archive(file)) == 6
    late = archived(audit, tmp_path / "late").file
    assert [entry.number for entry in read_archive(late)] == [4, 5, 6]


def test_a_gap_between_archive_and_volume_is_named_and_nothing_is_added(audit, tmp_path):
    file = archived(audit, tmp_path / "archive").file
    before = file.read_bytes()
    audit.record_all(outcome(number) for number in range(6, 9))
    audit.prune(71)
    with pytest.raises(ArchiveError, match="entry 8 was altered, or it does not follow entry 5"):
        archived(audit, tmp_path / "archive")
    assert file.read_bytes() == before


def test_an_interrupted_write_is_replaced(audit, tmp_path):
    file = archived(audit, tmp_path / "archive").file
    whole = file.read_bytes()
    file.write_bytes(whole[:-40])
    assert len(read_archive(file)) == 4
    assert archived(audit, tmp_path / "archive").added == 1
    assert file.read_bytes() == whole
    file.write_bytes(whole + b'{"number": 6, "prev' + b" " * 4000)
    assert archived(audit, tmp_path / "archive").added == 0
    assert file.read_bytes() == whole


def edited(file, line, old, new):
    lines = file.read_text().splitlines(keepends=True)
    assert old in lines[line]
    lines[line] = lines[line].replace(old, new)
    file.write_text("".join(lines))


@pytest.mark.parametrize(
    "harm",
    [
        lambda file: edited(file, 2, "session 3", "session 9"),
        lambda file: file.write_text("".join(file.read_text().splitlines(keepends=True)[:2] * 2)),
        lambda file: edited(file, 0, '"previous":"00', '"previous":"10'),
        lambda file: edited(file, 3, '"number":4', '"number":3'),
        lambda file: edited(file, 1, "{", "["),
    ],
)
def test_an_altered_archive_is_found(audit, tmp_path, harm):
    file = archived(audit, tmp_path / "archive").file
    harm(file)
    with pytest.raises(ArchiveError):
        read_archive(file)
    with pytest.raises(ArchiveError):
        archived(audit, tmp_path / "archive")


def test_a_cut_archive_is_found_by_published_heads(audit, tmp_path):
    file = archived(audit, tmp_path / "archive").file
    entries = read_archive(file)[:3]
    assert missing_heads(entries, [AuditHead(3, entries[2].hash)]) == []
    assert "the archive ends at 3" in missing_heads(entries, [audit.head])[0]
    assert "has another one" in missing_heads(entries, [AuditHead(3, "f" * 64)])[0]


def run(*arguments):
    return CliRunner().invoke(ledger, [str(word) for word in arguments])


def test_an_archive_is_verified_and_exported_without_the_volume(audit, tmp_path):
    data, folder = tmp_path / "volume", tmp_path / "archive"
    done = run("archive", "--data", data, folder)
    assert (done.exit_code, "5 outcomes added" in done.output) == (0, True)
    (file,) = folder.iterdir()
    assert file.stem == audit.head_row["trail"]
    heads = tmp_path / "heads"
    heads.write_text(f"2026-11-29 5 {audit.head.hash}\n")
    verified = run("verify", "--archive", file, "--published", heads)
    assert (verified.exit_code, "5 outcomes, none altered, 1 published" in verified.output) == (0, True)
    for command in (("export",), ("earnings", "--by", "session")):
        assert run(*command, "--archive", file).output == run(*command, "--data", data).output
    heads.write_text(f"2026-11-30 6 {'a' * 64}\n")
    assert run("verify", "--archive", file, "--published", heads).exit_code == 1


@pytest.mark.long
@pytest.mark.processes
def test_the_trail_of_a_pod_is_archived_and_compared_with_its_published_head(audit, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECTL", str(kubectl_stand_in(tmp_path)))
    found = archive_pod(PodShell.of(None, None), "ns", "volume", tmp_path / "archive", {})
    assert (found.done.added, found.problem) == (5, "")
    row = {"pod": "volume", "number": 5, "hash": read_archive(found.done.file)[-1].hash}
    for number, problem in ((5, ""), (6, "outcome 6 was published, but the archive ends at 5")):
        heads = published_heads_of({"status": {"audit": [{**row, "number": number}, {"pod": "m-1", "number": -1}]}})
        assert archive_pod(PodShell.of(None, None), "ns", "volume", tmp_path / "archive", heads).problem == problem


def test_a_miner_with_another_volume_has_another_file(audit, tmp_path):
    archived(audit, tmp_path / "archive")
    other = Audit(tmp_path / "other" / "audit.sqlite")
    other.record(outcome(1))
    other.load_head()
    assert archived(other, tmp_path / "archive").added == 1
    assert len(list((tmp_path / "archive").iterdir())) == 2
    pages = iter([trail_page(audit, 0).model_copy(update={"last": 9}), trail_page(other, 0)])
    with pytest.raises(ArchiveError, match="another volume"):
        append_to_archive(tmp_path / "third", lambda _: next(pages))
    other.close()


def test_a_page_says_what_it_is(audit):
    page = TrailPage.model_validate_json(trail_page(audit, 3).model_dump_json())
    assert [entry.number for entry in page.entries] == [4, 5]
    assert json.loads(page.entries[0].body)["session_id"] == "session 4"


def test_an_archive_that_is_cut_off_is_verified_with_a_warning(audit, tmp_path):
    file = archived(audit, tmp_path / "archive").file
    whole = run("verify", "--archive", file)
    assert (whole.exit_code, whole.output) == (0, "5 outcomes, none altered\n")
    file.write_bytes(file.read_bytes()[:-5])
    cut = run("verify", "--archive", file)
    assert (cut.exit_code, cut.stdout) == (0, "4 outcomes, none altered\n")
    assert "the last line is cut off" in cut.stderr
