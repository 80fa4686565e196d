"""`kubectl pocket` over readings of a cluster: rows, findings with their remedy, redaction, the guard of a clean-up."""

import json
import stat
import tarfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from kubectl_stand_in import kubectl_stand_in
from pocket.keys.sealed_box import Controller, Subject, seal
from pocket_miner.storage.audit import Audit
from pocket_miner.storage.outcomes import OutcomeRecord
from pocket_operator.resources import names
from relayctl.k8s.cluster_view import ClusterView
from relayctl.k8s.diagnosis import FindingCode, Severity, diagnose
from relayctl.k8s.incident_bundle import addresses_of, pod_files, view_files, write_bundle
from relayctl.k8s.plugin import ask_miners, merged_earnings
from relayctl.k8s.plugin_completion import completions
from relayctl.k8s.pod_shell import PodCommandFailed, PodShell
from relayctl.k8s.redaction import Redactor
from relayctl.k8s.supplier_rows import COLUMNS, supplier_rows
from relayctl.k8s.table_output import OutputFormat, rendered
from resources import address, changed, key_of, relay_miner, supplier

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)


def stamp(ago=timedelta()):
    return (NOW - ago).isoformat().replace("+00:00", "Z")


def condition(kind, state, reason, message=""):
    return {"type": kind, "status": state, "reason": reason, "message": message}


def meta(resource, **metadata):
    place = {"uid": f"uid-{resource['metadata']['name']}", "generation": 1, "creationTimestamp": stamp(timedelta(1))}
    return {**resource, "metadata": {**resource["metadata"], **place, **metadata}}


RM = changed(
    meta(relay_miner("ns")),
    "status",
    {"observedGeneration": 1, "height": 100, "operator": "pocket-system", "conditions": []},
)
RM = changed(RM, "spec.chain.blockSeconds", 30)
STATUS = {
    "observedGeneration": 1, "miner": "main-miner-0", "openSessions": 2, "sessions": {"active": 1},
    "earnedUpokt": 500, "earned": [{"recipient": "pokt1owner", "upokt": 400}, {"recipient": "pokt1op", "upokt": 100}],
    "day": {"date": "2026-11-29", "earned": [{"recipient": "pokt1owner", "upokt": 40}], "earnedUpokt": 40,
            "feesUpokt": 7, "settled": 1, "lost": 1},
    "last": {"loss": "abc at 9: claim_missed: no node"},
    "nextDeadline": {"kind": "claim", "height": 112, "sessions": 1},
    "funds": {"balanceUpokt": 9000, "feesPerDayUpokt": 100, "daysLeft": 90},
    "conditions": [condition("Ready", "True", "Ready"), condition("Staked", "True", "Staked")],
}  # fmt: skip
ALICE = changed(meta(supplier("ns")), "status", STATUS)
MINER = {
    "metadata": {
        "namespace": "ns", "name": "main-miner-0", "uid": "uid-pod", "creationTimestamp": stamp(timedelta(1)),
        "labels": names.selector("main", names.MINER),
    },
    "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
}  # fmt: skip
VIEW = ClusterView(NOW, "ns", (RM,), (ALICE,), (MINER,))


def with_alice(path, value):
    return replace(VIEW, suppliers=(changed(ALICE, path, value),))


def test_a_row_has_stake_sessions_earnings_losses_deadline_and_funds():
    (row,) = supplier_rows(VIEW)
    expected = {
        "name": "alice", "relay_miner": "main", "ready": "yes", "staked": "yes", "in_session": 1, "today_upokt": 40,
        "today_by": {"pokt1owner": 40}, "fees_today_upokt": 7, "lost_today": 1, "earned_upokt": 500,
        "deadline": "claim before 112 (12 blocks, 6m00s)", "balance_upokt": 9000, "days_left": 90,
        "last_loss": "abc at 9: claim_missed: no node",
    }  # fmt: skip
    assert {key: row[key] for key in expected} == expected


def test_earnings_of_an_earlier_day_are_not_today_s():
    (row,) = supplier_rows(with_alice("status.day.date", "2026-11-28"))
    assert (row["today_upokt"], row["today_by"], row["lost_today"], row["earned_upokt"]) == (0, {}, 0, 500)


def test_a_declared_stake_is_compared_as_declared():
    view = with_alice("spec.stake", {"amountUpokt": 1})
    assert supplier_rows(view)[0]["staked"] == "unknown"
    status = {**STATUS, "conditions": [condition("StakeAsDeclared", "False", "Differs")]}
    view = replace(VIEW, suppliers=(changed(changed(ALICE, "status", status), "spec.stake", {"amountUpokt": 1}),))
    assert supplier_rows(view)[0]["staked"] == "no: Differs"


def test_a_supplier_without_status_has_a_row():
    (row,) = supplier_rows(replace(VIEW, suppliers=(meta(supplier("ns")),)))
    assert (row["ready"], row["in_session"], row["deadline"], row["days_left"]) == ("unknown", None, "", None)
    assert "alice   main          unknown   unknown   -" in rendered([row], OutputFormat.TABLE, COLUMNS)


@pytest.mark.parametrize("form", list(OutputFormat))
def test_every_form_of_output_has_the_rows(form):
    rows = supplier_rows(VIEW)
    text = rendered(rows, form, ("name", "days_left"), ("today_by",))
    match form:
        case OutputFormat.JSON:
            assert json.loads(text) == rows
        case OutputFormat.YAML:
            assert yaml.safe_load(text) == rows
        case OutputFormat.TABLE:
            assert text.splitlines() == ["NAME    DAYS LEFT", "alice   90"]
        case OutputFormat.WIDE:
            assert text.splitlines()[1].split() == ["alice", "90", "pokt1owner=40"]
    assert rendered([], OutputFormat.TABLE, ("name",)) == "No resources found."


def test_nothing_is_found_in_a_healthy_cluster():
    assert diagnose(VIEW) == []


def pod(**status):
    return {**MINER, "status": {**MINER["status"], **status}}


def lease(ago, holder="main-miner-0"):
    labels = {"pocket.network/lease-group": "main-miner"}
    spec = {"holderIdentity": holder, "renewTime": stamp(ago), "leaseDurationSeconds": 15}
    return {"metadata": {"name": "main-miner-0", "namespace": "ns", "labels": labels}, "spec": spec}


def claim(phase, ago=timedelta(hours=1), name="main"):
    metadata = {
        "name": "data",
        "namespace": "ns",
        "labels": {names.LABEL_RELAY_MINER: name},
        "creationTimestamp": stamp(ago),
    }
    return {"kind": "PersistentVolumeClaim", "metadata": metadata, "status": {"phase": phase}}


def event(ago=timedelta(minutes=5), kind="Warning", uid="uid-main"):
    about = {"kind": "RelayMiner", "name": "main", "namespace": "ns", "uid": uid}
    row = {"type": kind, "reason": "FailedCreate", "message": "quota", "lastTimestamp": stamp(ago)}
    return {**row, "involvedObject": about, "metadata": {"namespace": "ns", "name": "e"}}


WAITING = {"name": "miner", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}}
KILLED = {"name": "miner", "restartCount": 9, "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}
NOT_READY = [{"type": "Ready", "status": "False"}]
CASES = {
    "a condition is false": (
        with_alice("status.conditions", [condition("Staked", "False", "NotStaked", "It is not staked. Stake it.")]),
        Severity.ERROR, FindingCode.CONDITION, "NotStaked): It is not staked", "Stake it.",
    ),
    "a negative condition is true": (
        with_alice("status.conditions", [condition("OperatorConflict", "True", "Other", "Two operators. Remove one.")]),
        Severity.ERROR, FindingCode.CONDITION, "Two operators", "Remove one.",
    ),
    "something is under way": (
        with_alice("status.conditions", [condition("KeysLoaded", "False", "LoadingKeys", "Not every pod has it yet")]),
        Severity.INFO, FindingCode.CONDITION, "Not every pod", "docs/troubleshoot.md",
    ),
    "a condition warns while it is true": (
        with_alice("status.conditions", [condition("Staked", "True", "EndpointsBroken", "A URL fails. Correct it.")]),
        Severity.WARNING, FindingCode.CONDITION, "A URL fails", "Correct it.",
    ),
    "no operator": (
        replace(VIEW, relay_miners=(changed(RM, "status.observedGeneration", 0),)),
        Severity.ERROR, FindingCode.NO_OPERATOR, "no operator", "kubectl get pods",
    ),
    "the operator does not follow": (
        replace(VIEW, relay_miners=(changed(RM, "metadata.generation", 3),)),
        Severity.ERROR, FindingCode.STATUS_BEHIND, "generation 1", "kubectl get pods",
    ),
    "an operator is not ready": (
        replace(VIEW, operator_pods=(pod(conditions=NOT_READY),)),
        Severity.WARNING, FindingCode.OPERATOR_NOT_READY, "not ready", "kubectl logs",
    ),
    "a deletion is stuck": (
        with_alice("metadata.deletionTimestamp", stamp(timedelta(hours=7))),
        Severity.WARNING, FindingCode.DELETION_STUCK, "2 open sessions", "forced deletion",
    ),
    "a pod waits": (
        replace(VIEW, pods=(pod(containerStatuses=[WAITING]),)),
        Severity.ERROR, FindingCode.POD_WAITING, "ImagePullBackOff not found", "kubectl describe pod",
    ),
    "a pod was killed for memory": (
        replace(VIEW, pods=(pod(containerStatuses=[KILLED]),)),
        Severity.WARNING, FindingCode.POD_RESTARTS, "9 times", "memory limit",
    ),
    "a pod is pending": (
        replace(VIEW, pods=(pod(phase="Pending", conditions=[{"status": "False", "message": "no node"}]),)),
        Severity.ERROR, FindingCode.POD_PENDING, "no node", "kubectl describe pod",
    ),
    "a volume is pending": (
        replace(VIEW, claims=(claim("Pending"),)),
        Severity.ERROR, FindingCode.VOLUME_PENDING, "Pending", "storage classes",
    ),
    "funds run out": (
        with_alice("status.funds.daysLeft", 2),
        Severity.WARNING, FindingCode.FUNDS_SHORT, "2 more days", f"Send POKT to {address('alice')}",
    ),
    "a deadline is near and no miner is ready": (
        replace(with_alice("status.nextDeadline.height", 101), pods=(pod(conditions=NOT_READY),)),
        Severity.ERROR, FindingCode.DEADLINE_NEAR, "within 1 blocks", "Bring a miner up",
    ),
    "leases are not renewed": (
        replace(VIEW, leases=(lease(timedelta(minutes=2)),)),
        Severity.ERROR, FindingCode.LEASE_EXPIRED, "1 Leases", "lease-group=main-miner",
    ),
    "two Suppliers with one address": (
        replace(VIEW, suppliers=(ALICE, changed(ALICE, "metadata.name", "alicia"))),
        Severity.ERROR, FindingCode.SAME_ADDRESS, "Supplier/alicia in ns", "Delete one",
    ),
    "the RelayMiner does not exist": (
        with_alice("spec.relayMinerRef.name", "none"),
        Severity.ERROR, FindingCode.NO_RELAY_MINER, "none does not exist", "Create RelayMiner none",
    ),
    "a warning of the last hour": (
        replace(VIEW, events=(event(),)),
        Severity.INFO, FindingCode.WARNINGS, "FailedCreate in the last hour: quota", "describe",
    ),
    "a list was refused": (
        replace(VIEW, unread={"pods": "403"}),
        Severity.INFO, FindingCode.NOT_CHECKED, "403", "right to list",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_is_found_with_its_remedy(case):
    view, severity, code, words, remedy = CASES[case]
    found = diagnose(view)
    assert [(f.severity, f.code) for f in found] == [(severity, code)]
    assert words in found[0].message
    assert remedy in found[0].remedy


def test_every_code_has_a_case():
    assert {code for _, _, code, _, _ in CASES.values()} == set(FindingCode)


@pytest.mark.parametrize(
    "view",
    [
        replace(VIEW, leases=(lease(timedelta(seconds=20)),)),
        replace(VIEW, leases=(lease(timedelta(minutes=2), holder=""),)),
        replace(VIEW, claims=(claim("Bound"), claim("Pending", timedelta(minutes=1)), claim("Pending", name="other"))),
        replace(VIEW, events=(event(timedelta(hours=2)), event(kind="Normal"), event(uid="another"))),
        replace(with_alice("status.nextDeadline.height", 101)),
        with_alice("metadata.deletionTimestamp", stamp(timedelta(hours=1))),
        with_alice("status.funds.daysLeft", None),
    ],
)
def test_what_is_in_order_is_not_found(view):
    assert diagnose(view) == []


def test_the_worst_comes_first():
    view = replace(VIEW, events=(event(),), leases=(lease(timedelta(minutes=2)),))
    assert [finding.severity for finding in diagnose(view)] == [Severity.ERROR, Severity.INFO]


KEY = key_of("alice")
SEALED = seal(Controller.of([bytes(range(32))]).newest, Subject("ns", "alice", address("alice")), KEY)
PLANTED = {
    "password": "hunter2hunter2", "api key in a URL": "Zx9Qw8Er7Ty6Ui5Op4As", "token": "ghp_0123456789abcdef",
    "header": "X-Secret-Value-77", "private key": KEY, "sealed key": SEALED, "environment": "env-value-4711",
    "redis password": "r3d1sp4ss", "bearer": "eyJhbGciOiJIUzI1NiJ9.payload",
}  # fmt: skip


def planted_view():
    miner = changed(RM, "spec.redis.url", f"rediss://user:{PLANTED['redis password']}@redis:6379/0")
    backend = {
        "urls": [f"https://eth.example/v3/{PLANTED['api key in a URL']}?key={PLANTED['token']}"],
        "headers": {"X-Own": PLANTED["header"]},
    }
    miner = changed(miner, "spec.services", [{"id": "eth", "backends": {"jsonRpc": backend}}])
    annotations = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps({"p": PLANTED["password"]})}
    miner = changed(miner, "metadata.annotations", annotations)
    alice = changed(ALICE, "spec.key", {"sealed": SEALED})
    alice = changed(alice, "status.last.loss", f"s at 9: claim_missed: key {KEY} refused")
    pods = changed(
        MINER, "spec.containers", [{"name": "miner", "env": [{"name": "A", "value": PLANTED["environment"]}]}]
    )
    words = f"cannot reach redis://:{PLANTED['redis password']}@redis: Authorization: Bearer {PLANTED['bearer']}"
    events = changed(event(), "message", words)
    return replace(VIEW, relay_miners=(miner,), suppliers=(alice,), pods=(pods,), events=(events,))


@pytest.fixture
def kubectl(tmp_path, monkeypatch):
    """Name the stand-in for kubectl in KUBECTL."""
    script = kubectl_stand_in(tmp_path)
    monkeypatch.setenv("KUBECTL", str(script))
    return script


def volume(folder, **earned):
    audit = Audit(folder / "audit.sqlite")
    for number, (recipient, upokt) in enumerate(earned.items()):
        details = {
            "service_id": "eth", "session_end_height": 5, "earned_by": {recipient: upokt},
            "time": "2026-11-29T01:00:00Z",
        }  # fmt: skip
        audit.record(OutcomeRecord(address("alice"), f"{folder.name}-{number}", "settled", "SETTLED", "", 9, details))
    audit.close()


@pytest.mark.processes
def test_no_planted_secret_is_in_the_archive_and_the_rest_is(tmp_path, kubectl):
    log = {"level": "info", "event": "sealed", "fields": {"session": "ab" * 32, "password": PLANTED["password"]}}
    kubectl.with_name("kubectl.log").write_text(
        f"[pod/main-miner-0] 2026 {json.dumps(log)}\nTraceback: token={PLANTED['token']} key {KEY}\n"
    )
    view, path = planted_view(), tmp_path / "incident.tar.gz"
    files = [*view_files(view), *pod_files(PodShell.of(None, None), view, 100)]
    raw = "\n".join(content for _, content in files)
    assert [name for name, value in PLANTED.items() if value not in raw] == []  # each one would be there
    written = write_bundle(path, files, Redactor(addresses_of(view)), NOW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with tarfile.open(path) as archive:
        members = {m.name: archive.extractfile(m).read().decode() for m in archive.getmembers()}
    assert sorted(members) == sorted(f"incident/{name}" for name in written)
    whole = "\n".join(members.values())
    assert [name for name, value in PLANTED.items() if value in whole] == []
    for kept in (address("alice"), "ab" * 32, "claim_missed", "eth.example", "redis:6379", "main-miner-0"):
        assert kept in whole
    assert yaml.safe_load(members["incident/resources/suppliers.yaml"])["status"]["earnedUpokt"] == 500
    assert json.loads(members["incident/doctor.json"])


def test_an_archive_is_never_overwritten(tmp_path):
    path = tmp_path / "there.tar.gz"
    path.write_text("mine")
    with pytest.raises(Exception, match="File exists"):
        write_bundle(path, [], Redactor(), NOW)
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://user:pa/ss@host:1/x", "http://host:1/x"),
        ("see https://h/docs/page#top", "see https://h/docs/page#top"),
        ("redis://:se,cret@host, redis://user:p;a)s]s'w@h/0", "redis://host, redis://h/0"),
        ("(https://h/v1/mainnet) passwd=abc, pwd: abc", "(https://h/v1/mainnet) passwd=REDACTED, pwd: REDACTED"),
        ("https://h/v2/abcdef012345", "https://h/v2/REDACTED"),
        ("Basic dXNlcjpwYXNz!", "Basic REDACTED!"),
        ('{"api_key": "v"}', '{"api_key": REDACTED}'),
        (f"0x{KEY.upper()}", "REDACTED"),
        ("cd" * 32, "cd" * 32),
    ],
)
def test_texts_lose_credentials_only(text, expected):
    assert Redactor({address("alice")}).text(text) == expected


def test_words_of_a_command_after_a_secret_flag_are_removed():
    found = Redactor().value(
        {"args": ["--token", "abc", "--port", "80", "--password=abc"], "command": ["x", "-p", "y"]}
    )
    assert found == {
        "args": ["--token", "REDACTED", "--port", "80", "--password=REDACTED"],
        "command": ["x", "-p", "y"],
    }


def test_references_to_secrets_keep_their_names():
    spec = {"secretRef": {"name": "alice-key", "key": "hex"}, "secretName": "x", "tokenSecretRef": "y"}
    found = Redactor().value({"spec": spec})["spec"]
    assert found["secretRef"]["name"] == "alice-key"
    assert (found["secretName"], found["tokenSecretRef"]) == ("x", "y")


@pytest.mark.long
@pytest.mark.processes
def test_explain_and_earnings_read_every_miner(tmp_path, kubectl):
    for name, earned in (("main-miner-0", {"owner": 5, "operator": 2}), ("main-miner-1", {"owner": 7})):
        (tmp_path / name).mkdir()
        volume(tmp_path / name, **earned)
    shell, pods = PodShell.of(None, None), [("ns", "main-miner-0"), ("ns", "main-miner-1"), ("ns", "gone")]
    outputs, failures = ask_miners(shell, pods, "ledger", "earnings", "--by", "day")
    assert [row | {"supplier": ""} for row in merged_earnings(outputs)] == [
        {"supplier": "", "day": "2026-11-29", "service_id": "eth", "recipient": "operator", "upokt": 2, "sessions": 1},
        {"supplier": "", "day": "2026-11-29", "service_id": "eth", "recipient": "owner", "upokt": 12, "sessions": 2},
    ]
    assert [failure.partition(":")[0] for failure in failures] == ["gone"]
    outputs, failures = ask_miners(shell, pods[:2], "ledger", "explain", "main-miner-1-0")
    assert "The claim was paid." in outputs[0]
    assert "no session on this volume" in failures[0]


def test_without_kubectl_the_remedy_is_named(monkeypatch):
    monkeypatch.delenv("KUBECTL", raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(PodCommandFailed, match="KUBECTL"):
        PodShell.of(None, None)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sta"], ["status\tShow stake, sessions, earnings, losses, the next deadline and funds of...", ":4"]),
        (["earnings", "--by", "s"], ["session", "service", "supplier", ":4"]),
        (["status", "--output", "y"], ["yaml", ":4"]),
        (["bundle", ""], [":0"]),
    ],
)
def test_kubectl_gets_proposals(words, expected):
    found = completions(words)
    assert [line.partition("\t")[0] for line in found] == [line.partition("\t")[0] for line in expected]
