"""The console that the operator runs, with the rights and the command that its pod gets."""

import contextlib
import os
import subprocess
import sys

import aiohttp
import pytest
from waits import all_well, create

from kube import eventually, kubeconfig_of
from pocket.kube.api_client import KubeError
from pocket_operator.resources.kinds import BY_KIND, RELAY_MINERS
from relayctl.local_ports import free_port
from resources import address, changed, key_of, key_secret, relay_miner, supplier

NAME = "main-console"
KINDS = ("ServiceAccount", "Role", "RoleBinding", "Service", "Deployment")
HOST = "console.example.org"


@contextlib.contextmanager
def serving(command: list[str], kubeconfig, log):
    """Run the console's command as its pod does, on a port of this machine. Yields the port."""
    port = free_port()
    arguments = [row for row in command[1:] if not row.startswith(("--host=", "--port="))]
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, *arguments, f"--port={port}", "--interval=0.5"], stdout=output, stderr=output,
            env=environment,
        )  # fmt: skip
    try:
        yield port
    finally:
        child.terminate()
        child.wait(20)


async def test_the_console_is_run_shows_its_relay_miner_and_goes_when_it_is_no_longer_declared(
    api, cluster, namespace, operator, nodes, tmp_path
):
    resource = changed(relay_miner(namespace), "spec.console", {"hosts": [HOST]})
    await create(api, key_secret(namespace), resource, supplier(namespace))
    await all_well(api, namespace, "alice")

    async def ready():
        console = (await api.get(RELAY_MINERS, namespace, "main"))["status"].get("console") or {}
        return console if console.get("ready") else None

    assert await eventually(ready, 30) == {
        "ready": True, "endpoint": f"http://{NAME}.{namespace}.svc:8900", "problem": ""
    }  # fmt: skip
    pod = (await api.get(BY_KIND["Deployment"], namespace, NAME))["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == NAME
    kubeconfig = kubeconfig_of(cluster, namespace, NAME, tmp_path / "console.kubeconfig")
    for verb, resources in (
        ("list", ("secrets", "configmaps", "leases.coordination.k8s.io")),
        ("get", ("secrets", "pods", "pods/log", "pods/proxy")),
        ("create", ("pods/exec", "serviceaccounts/token")),
    ):
        for name in resources:
            asked = cluster.kubectl("-n", namespace, "--kubeconfig", str(kubeconfig), "auth", "can-i", verb, name,
                                    check=False)  # fmt: skip
            assert asked.stdout.strip() == "no", (verb, name)

    with serving(pod["containers"][0]["command"], kubeconfig, tmp_path / "console.log") as port:
        async with aiohttp.ClientSession() as http:

            async def page(path: str, host: str) -> tuple[int, str]:
                async with http.get(f"http://127.0.0.1:{port}{path}", headers={"Host": host}) as answer:
                    return answer.status, await answer.text()

            async def shown():
                with contextlib.suppress(aiohttp.ClientError):
                    status, text = await page("/fleet", HOST)
                    return text if status == 200 and "main-relayer-" in text and "main-miner-0" in text else None

            fleet = await eventually(shown, 30, "the pods on the page")
            assert "main" in fleet
            assert address("alice") in (await page("/suppliers", HOST))[1]
            assert (await page("/fleet", "elsewhere.example.org"))[0] != 200
            assert key_of("alice") not in fleet

    await api.merge(RELAY_MINERS, namespace, "main", {"spec": {"console": None}})

    async def gone():
        found = [await api.get_or_none(BY_KIND[kind], namespace, NAME) for kind in KINDS]
        return not any(found)

    await eventually(gone, 30, "the console gone")

    async def silent():
        return "console" not in (await api.get(RELAY_MINERS, namespace, "main"))["status"]

    await eventually(silent, 30, "no console in the status")


@pytest.mark.parametrize(
    ("console", "message"),
    [
        ({"hosts": ["https://console.example.org"]}, "without scheme and port"),
        ({"hosts": ["a.example", "a.example"]}, "Duplicate value"),
        ({"blockUrl": "ftp://explorer/{height}"}, "https://host/path"),
        ({"dashboardsUrl": "https://user:password@grafana"}, "without credentials"),
        ({"podTemplate": {"spec": {"serviceAccountName": "admin"}}}, "unknown field"),
        ({"podTemplate": {"tolerations": ["all"]}}, "must be of type object"),
        ({"replicas": 2}, "unknown field"),
    ],
)
async def test_a_console_that_cannot_work_is_refused(api, namespace, console, message):
    resource = changed(relay_miner(namespace), "spec.console", console)
    with pytest.raises(KubeError, match=message):
        await api.call(
            "POST", RELAY_MINERS.path(namespace), body=resource, query={"dryRun": "All", "fieldValidation": "Strict"}
        )
