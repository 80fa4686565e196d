"""The product in a cluster goes: with sessions open, and for good."""

import json
import subprocess
from asyncio import to_thread as on

from kube import ROOT
from nodes import await_that, render
from trial import NAMESPACE


async def test_deleting_everything_in_the_middle_of_sessions_still_pays_every_relay(fresh):
    """RelayMiner, Suppliers and Secrets pruned at once, as Argo CD does: miners stay until all is settled.

    The namespace cannot go before.
    """
    traffic = fresh.traffic()
    await traffic.send(30)
    assert not traffic.failures
    kubectl = fresh.cluster.kubectl
    await on(kubectl, "annotate", "namespace", NAMESPACE, "pocket.network/force-delete-")

    def deletion() -> subprocess.CompletedProcess[str]:
        return kubectl("delete", "namespace", NAMESPACE, "--dry-run=server", check=False)

    held = "1 RelayMiner and 3 Suppliers whose sessions may not be settled"
    await on(await_that, lambda: held in deletion().stderr, 10, "the namespace held")
    await on(lambda: kubectl("-n", NAMESPACE, "delete", "relayminer,suppliers", "--all", "--wait=false"))
    await on(lambda: kubectl("-n", NAMESPACE, "delete", "secret", "alice-key", "bob-key", "pocket-sealing"))
    await on(await_that, lambda: not fresh.pods("relayer"), 60, "relayers gone")
    before = {p["metadata"]["name"] for p in fresh.pods("miner")}
    assert before == {"trial-miner-0"}
    log = await on(lambda: subprocess.run(
        [fresh.cluster.kubectl_path, "--kubeconfig", str(fresh.cluster.kubeconfig), "-n", NAMESPACE, "logs", "-f",
         "trial-miner-0"], capture_output=True, text=True, timeout=150, check=False).stdout)  # fmt: skip
    await on(
        await_that, lambda: not fresh.get("relayminer")["items"] and not fresh.get("suppliers")["items"], 60, "gone"
    )
    await on(await_that, lambda: not fresh.pods("miner"), 60, "miners gone")
    rows = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    ended = [row for row in rows if row["event"] == "session ended"]
    assert len({row["supplier"] for row in ended}) == 3, [row["event"] for row in rows][-20:]
    assert {row["outcome"] for row in ended} == {"settled"}
    await on(await_that, lambda: deletion().returncode == 0, 10, "the namespace let go")


def test_uninstalling_leaves_nothing(installed):
    """Uninstalling removes CRDs, roles and namespace, and a second installation works."""
    kubectl = installed.kubectl
    kubectl("delete", "-f", "-", "--ignore-not-found", stdin=render(installed, ROOT / "manifests"))
    policies = "validatingadmissionpolicy,validatingadmissionpolicybinding"
    left = kubectl("get", f"crd,clusterrole,clusterrolebinding,namespace,{policies}", "-o", "name").stdout
    assert "pocket" not in left
    again = render(installed, ROOT / "manifests")
    kubectl("apply", "--server-side", "-f", "-", stdin=again)
    kubectl("-n", "pocket-system", "rollout", "status", "deployment/pocket-operator", "--timeout=90s")
