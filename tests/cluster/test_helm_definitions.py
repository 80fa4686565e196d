"""Definitions that Helm installed are updated by the command of docs/install.md."""

import copy
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
GROUP = "upgrade.test"


def test_the_command_of_the_page_updates_definitions_that_helm_installed(cluster):
    upgrade = (ROOT / "docs/install.md").read_text().partition("\n## Upgrade\n")[2]
    (flags,) = re.findall(r"`kubectl apply (.*) -k crds/`", upgrade.partition("\n## ")[0])
    newer = yaml.safe_load((ROOT / "crds/protectednamespaces.yaml").read_text().replace("pocket.network", GROUP))
    older = copy.deepcopy(newer)
    del older["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"]
    cluster.kubectl("create", "--field-manager=helm", "-f", "-", stdin=yaml.safe_dump(older))
    name = newer["metadata"]["name"]
    try:
        cluster.kubectl("apply", *flags.split(), "-f", "-", stdin=yaml.safe_dump(newer))
        found = yaml.safe_load(cluster.kubectl("get", "crd", name, "-o", "yaml").stdout)
        assert found["spec"]["versions"][0]["schema"] == newer["spec"]["versions"][0]["schema"]
    finally:
        cluster.kubectl("delete", "crd", name)
