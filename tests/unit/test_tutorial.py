"""The tutorial's commands name what its manifests and the operator create."""

import re
from pathlib import Path

import pytest
import yaml

from pocket.api.relayminer import RelayMiner
from pocket_operator.install import Values
from pocket_operator.resources import desired
from pocket_operator.resources.context import Context, Images

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = (ROOT / "docs/tutorial.md").read_text()
TRIAL = ROOT / "manifests/samples/trial"


def created():
    """Return what stands in the trial's namespace and the operator's: `kind/name` to the object."""
    listed = yaml.safe_load((TRIAL / "kustomization.yaml").read_text())["resources"]
    rows = [row for name in listed for row in yaml.safe_load_all((TRIAL / name).read_text()) if row]
    relay_miner = next(row for row in rows if row["kind"] == "RelayMiner")
    rows += desired(Context(RelayMiner.model_validate(relay_miner), "uid", Images(), "pocket-system"))
    for file in sorted((ROOT / "manifests/cluster").glob("*.yaml")):
        rows += [row for row in yaml.safe_load_all(file.read_text()) if row and "metadata" in row]
    return {f"{row['kind'].lower()}/{row['metadata']['name']}": row for row in rows}


CREATED = created()
CHILDREN = ("deployment/trial-relayer",)  # its image is one of Values
COMMANDS = re.findall(r"^kubectl .*$", TUTORIAL, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_object_and_namespace_of_a_command_exists(command):
    for kind, name in re.findall(r"\b(deployment|service|relayminer)/([\w-]+)", command):
        assert f"{kind}/{name}" in CREATED
    for name in re.findall(r" -n ([\w-]+)", command):
        assert f"namespace/{name}" in CREATED
    for pod in re.findall(r" exec ([\w-]+)", command):
        assert f"statefulset/{pod.rpartition('-')[0]}" in CREATED
    for folder in re.findall(r" -k (\S+)", command):
        assert (ROOT / folder / "kustomization.yaml").is_file()


@pytest.mark.parametrize("command", [row for row in COMMANDS if "port-forward" in row])
def test_forwarded_ports_are_those_of_the_services(command):
    name, *ports = re.search(r"service/(\S+) (.*)", command).group(1, 2)
    offered = {port["port"] for port in CREATED[f"service/{name}"]["spec"]["ports"]}
    assert {int(port.rpartition(":")[2]) for port in ports[0].split()} <= offered


def test_the_relays_are_signed_for_an_application_of_the_genesis_by_its_gateway():
    genesis = yaml.safe_load((TRIAL / "genesis.yaml").read_text())
    application, service = re.search(r"--app (\S+) --service (\S+)", TUTORIAL).group(1, 2)
    assert any((row["address"], row["service"]) == (application, service) for row in genesis["applications"])
    assert re.search(r"^key: [0-9a-f]{64}$", (TRIAL / "gateway.yaml").read_text(), re.MULTILINE)


def test_the_images_that_are_loaded_are_those_of_the_manifests():
    prefix, tag = re.search(r"make images PREFIX=(\S+) TAG=(\S+)", TUTORIAL).group(1, 2)
    loaded = re.search(r"for name in (.*); do", TUTORIAL)[1].split()
    values = Values()
    assert {f"{prefix}{name}:{tag}" for name in loaded} >= {values.relayer_image, values.miner_image}
    used = {
        container["image"] for name, row in CREATED.items() if row["kind"] == "Deployment" and name not in CHILDREN
        for container in row["spec"]["template"]["spec"]["containers"]
    }  # fmt: skip
    assert used <= {f"{prefix}{name}:{tag}" for name in loaded}
