"""The console's Deployment, applied by hand or run by the operator: its rights, its command, its probes."""

from pathlib import Path

import pytest
import yaml

from pocket.api.relayminer import RelayMiner
from pocket_console.__main__ import main
from pocket_console.server import _LOOPBACK
from pocket_operator.decide.plan import plan
from pocket_operator.decide.relay_miner_status import relay_miner_status
from pocket_operator.decide.snapshot import Pod
from pocket_operator.resources import desired, names
from pocket_operator.resources.context import Context, Images
from resources import changed, relay_miner
from snapshots import RM, snapshot

BY_HAND = tuple(
    yaml.safe_load_all((Path(__file__).parents[2] / "manifests/console/console.yaml").read_text(encoding="utf-8"))
)
DECLARED = {
    "hosts": ["console.example.org"], "blockUrl": "https://explorer.example.org/block/{height}",
    "transactionUrl": "https://explorer.example.org/tx/{hash}", "dashboardsUrl": "https://grafana.example.org",
}  # fmt: skip


def children(spec=DECLARED, **more) -> dict[tuple[str, str], dict]:
    resource = changed(changed(relay_miner("pocket"), "spec.console", spec), "spec.networkPolicy", {"enabled": True})
    context = Context(
        RelayMiner.model_validate(resource), "uid-1", Images(), "pocket-system", drain_anchor_uid="uid-2", **more
    )
    return {(row["kind"], row["metadata"]["name"]): row for row in desired(context)}


def of_console(rows) -> dict[str, dict]:
    return {kind: row for (kind, name), row in rows.items() if name == "main-console"}


@pytest.fixture(params=["by hand", "by the operator"])
def documents(request) -> dict[str, dict]:
    return {row["kind"]: row for row in BY_HAND} if request.param == "by hand" else of_console(children())


@pytest.fixture
def pod(documents) -> dict:
    return documents["Deployment"]["spec"]["template"]["spec"]


@pytest.fixture
def container(pod) -> dict:
    (found,) = pod["containers"]
    return found


def test_it_may_only_list_and_no_secrets(documents):
    rules = documents["Role"]["rules"]
    assert {verb for rule in rules for verb in rule["verbs"]} == {"list"}
    assert sorted(name for rule in rules for name in rule["resources"]) == ["pods", "relayminers", "suppliers"]


def test_its_command_is_one_that_the_program_understands(container):
    program, *arguments = container["command"][2:]
    assert program == "pocket_console"
    context = main.make_context("pocket_console", list(arguments))
    command, found = main.commands[context._protected_args[0]], context.args
    options = command.make_context("console", found).params
    assert (options["direct"], options["host"], options["port"]) == (
        True,
        "0.0.0.0",
        container["ports"][0]["containerPort"],
    )


@pytest.mark.parametrize("probe", ["readinessProbe", "livenessProbe"])
def test_its_probes_name_a_host_that_is_served(container, probe):
    (header,) = container[probe]["httpGet"]["httpHeaders"]
    assert header["name"] == "Host"
    assert header["value"] in _LOOPBACK
    assert container[probe]["httpGet"]["path"] == "/health"


def test_its_pod_is_restricted(pod, container):
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
    }  # fmt: skip


def test_the_service_selects_its_pod(documents, pod):
    labels = documents["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert documents["Service"]["spec"]["selector"].items() <= labels.items()
    assert documents["RoleBinding"]["roleRef"]["name"] == documents["Role"]["metadata"]["name"]
    assert documents["RoleBinding"]["subjects"][0]["name"] == pod["serviceAccountName"]


def test_no_key_configuration_or_credential_reaches_it(pod, container):
    assert "volumes" not in pod
    assert "volumeMounts" not in container
    assert not [row for row in container.get("env", ()) if "secretKeyRef" in row.get("valueFrom", {})]
    assert "redis" not in str(pod)


def test_it_shows_its_own_relay_miner_under_the_declared_names():
    arguments = of_console(children())["Deployment"]["spec"]["template"]["spec"]["containers"][0]["command"]
    assert {"--namespace=pocket", "--relayminer=main", "--allow-host=console.example.org",
            "--block-url=https://explorer.example.org/block/{height}",
            "--transaction-url=https://explorer.example.org/tx/{hash}",
            "--dashboards-url=https://grafana.example.org"} <= set(arguments)  # fmt: skip


def test_it_exists_only_as_long_as_it_is_declared_and_goes_with_the_relay_miner():
    assert set(of_console(children())) == {
        "ServiceAccount", "Role", "RoleBinding", "Service", "Deployment", "NetworkPolicy"
    }  # fmt: skip
    assert of_console(children(None)) == of_console(children(deleting=True)) == {}
    for row in of_console(children()).values():
        assert [owner["kind"] for owner in row["metadata"]["ownerReferences"]] == ["RelayMiner"]


def test_policies_let_it_read_the_pods_and_nobody_reach_it_unless_declared():
    rows = children()
    reader = {"podSelector": {"matchLabels": names.selector("main", names.CONSOLE)}}
    for name in ("main-relayer", "main-miner"):
        (rule,) = [r for r in rows["NetworkPolicy", name]["spec"]["ingress"] if r["ports"] == [{"port": 9090}]]
        assert reader in rule["from"]
    assert rows["NetworkPolicy", "main-console"]["spec"]["ingress"] == []
    peers = [{"podSelector": {"matchLabels": {"app": "proxy"}}}]
    resource = changed(
        changed(relay_miner("pocket"), "spec.console", {}),
        "spec.networkPolicy",
        {"enabled": True, "consoleFrom": peers},
    )
    made = desired(Context(RelayMiner.model_validate(resource), "u", Images(), "pocket-system"))
    (policy,) = [r for r in made if r["kind"] == "NetworkPolicy" and r["metadata"]["name"] == "main-console"]
    assert policy["spec"]["ingress"] == [{"from": peers, "ports": [{"port": 8900}]}]


WITH_CONSOLE = changed(RM, "spec.console", {"port": 80})


def console_pod(problem: str = "", *, ready: bool = False) -> Pod:
    return Pod("main-console-1", "u", names.CONSOLE, ready=ready, deleting=False, problem=problem)


def status(*pods: Pod, resource=WITH_CONSOLE, ready: int = 0):
    observed = {"metadata": {"generation": 1}, "spec": {"replicas": 1}, "status": {"readyReplicas": ready}}
    seen = snapshot(relay_miner=resource, pods=pods, children={("Deployment", "main-console"): observed})
    return relay_miner_status(seen, plan(seen))


def test_the_status_shows_whether_it_serves_and_why_not():
    assert status(resource=RM).console is None
    served = status(console_pod("an old problem", ready=True), ready=1).console
    assert (served.ready, served.endpoint, served.problem) == (True, "http://main-console.ns.svc:80", "")
    broken = status(console_pod("console: ImagePullBackOff: no such image"))
    assert (broken.console.ready, broken.console.problem) == (False, "console: ImagePullBackOff: no such image")
    ready = next(row for row in broken.conditions if row.type == "Ready")
    assert "ImagePullBackOff" not in ready.message, "relays are served without it"
