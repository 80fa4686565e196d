"""The console's Deployment: what it may read, and that its command and its probes fit the program."""

from pathlib import Path

import pytest
import yaml

from pocket_console.__main__ import main
from pocket_console.server import _LOOPBACK

DOCUMENTS = {
    row["kind"]: row
    for row in yaml.safe_load_all((Path(__file__).parents[2] / "manifests/console/console.yaml").read_text())
}
POD = DOCUMENTS["Deployment"]["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]


def test_it_may_only_list_and_no_secrets():
    rules = DOCUMENTS["Role"]["rules"]
    assert {verb for rule in rules for verb in rule["verbs"]} == {"list"}
    assert sorted(name for rule in rules for name in rule["resources"]) == ["pods", "relayminers", "suppliers"]


def test_its_command_is_one_that_the_program_understands():
    program, *arguments = CONTAINER["command"][2:]
    assert program == "pocket_console"
    context = main.make_context("pocket_console", list(arguments))
    command, found = main.commands[context._protected_args[0]], context.args
    options = command.make_context("console", found).params
    assert (options["direct"], options["host"], options["port"]) == (
        True,
        "0.0.0.0",
        CONTAINER["ports"][0]["containerPort"],
    )


@pytest.mark.parametrize("probe", ["readinessProbe", "livenessProbe"])
def test_its_probes_name_a_host_that_is_served(probe):
    (header,) = CONTAINER[probe]["httpGet"]["httpHeaders"]
    assert header["name"] == "Host"
    assert header["value"] in _LOOPBACK
    assert CONTAINER[probe]["httpGet"]["path"] == "/health"


def test_its_pod_is_restricted():
    assert POD["securityContext"]["runAsNonRoot"]
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
    }  # fmt: skip


def test_the_service_selects_its_pod():
    labels = DOCUMENTS["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert DOCUMENTS["Service"]["spec"]["selector"].items() <= labels.items()
    assert DOCUMENTS["RoleBinding"]["roleRef"]["name"] == DOCUMENTS["Role"]["metadata"]["name"]
    assert DOCUMENTS["RoleBinding"]["subjects"][0]["name"] == POD["serviceAccountName"]
