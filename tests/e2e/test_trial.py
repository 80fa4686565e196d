"""The product in a cluster, as its users run it: relays in, upokt out, whatever happens to the pods meanwhile."""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections import Counter

import pytest

from nodes import await_that
from trial import NAMESPACE, key_in_the_samples, secrets_of_the_samples


@contextlib.asynccontextmanager
async def flowing(traffic, per_second: float = 40):
    """Traffic while something happens."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(traffic.run(stop, per_second=per_second))
        try:
            yield
        finally:
            stop.set()


on = asyncio.to_thread


async def test_relays_served_through_the_service_are_claimed_proven_and_paid_to_the_upokt(trial, capsys):
    traffic = trial.traffic()
    await traffic.send(60)
    assert not traffic.failures
    await on(trial.settled)
    for supplier in (await on(trial.get, "suppliers"))["items"]:
        assert supplier["status"]["last"]["settlement"], supplier["metadata"]["name"]


async def test_a_key_is_removed_added_and_sealed_anew_while_everything_runs(trial, capsys):
    """Carol's Supplier goes, comes back sealed to the operator, and follows the operator's next sealing key."""
    carol = await on(trial.get, "supplier", "carol")
    key = key_in_the_samples("carol")
    address = carol["spec"]["operatorAddress"]
    pods = {p["metadata"]["uid"] for p in [*trial.pods("relayer"), *trial.pods("miner")]}
    traffic = trial.traffic()
    kubectl = trial.cluster.kubectl

    def served() -> bool:
        before = traffic.acknowledged[address]
        asyncio.run(traffic.send(1, address))
        return traffic.acknowledged[address] > before

    begun = time.monotonic()
    await on(kubectl, "-n", NAMESPACE, "delete", "supplier", "carol", "--wait=false")
    await on(await_that, lambda: not served(), 20, "carol refused")
    refused = time.monotonic() - begun
    await on(await_that, lambda: "carol" not in kubectl("-n", NAMESPACE, "get", "sup").stdout, 150, "carol drained")
    await on(kubectl, "-n", NAMESPACE, "delete", "secret", "pocket-sealing")
    public = (await on(trial.get, "configmap", "pocket-operator-sealing-public", "pocket-system"))["data"]["public-key"]
    sealed = await on(
        lambda: subprocess.run(
            [sys.executable, "-m", "relayctl.main", "keys", "seal", "--public-key", public, "--namespace", NAMESPACE,
             "--name", "carol", "--relay-miner", "trial"],
            input=key, text=True, capture_output=True, check=True,
        ).stdout
    )  # fmt: skip
    begun = time.monotonic()
    await on(lambda: kubectl("apply", "-f", "-", stdin=sealed))
    await on(await_that, served, 20, "carol served")
    added = time.monotonic() - begun
    with capsys.disabled():
        sys.stdout.write(
            f"\nkey removed and refused in {refused:.1f} s, sealed key served in {added:.1f} s (at most 10)\n"
        )
    assert refused <= 10
    assert added <= 10
    await on(kubectl, "-n", "pocket-system", "annotate", "secret", "pocket-operator-sealing",
             "pocket.network/rotate=requested")  # fmt: skip
    await on(await_that, lambda: trial.get("supplier", "carol")["status"].get("resealed"), 60, "offered resealed")
    resealed = (await on(trial.get, "supplier", "carol"))["status"]["resealed"]
    patch = json.dumps({"spec": {"key": {"sealed": resealed}}})
    async with flowing(traffic):
        await on(kubectl, "-n", NAMESPACE, "patch", "supplier", "carol", "--type=merge", "-p", patch)
        await on(await_that, lambda: not trial.get("supplier", "carol")["status"].get("resealed"), 30, "taken")
        await on(trial.ready)
    assert {p["metadata"]["uid"] for p in [*trial.pods("relayer"), *trial.pods("miner")]} == pods


@pytest.mark.parametrize("operator", ["lives", "is killed in the middle"])
async def test_a_rolling_update_under_load_fails_no_relay_and_loses_none(trial, capsys, operator):
    kubectl = trial.cluster.kubectl
    await on(lambda: kubectl("-n", NAMESPACE, "scale", "relayminer/trial", "--replicas=2"))
    await on(await_that, lambda: len(trial.pods("relayer")) == 2, 30, "two relayers")
    await on(trial.ready)
    old = {p["metadata"]["uid"] for p in trial.pods("relayer")}
    traffic = trial.traffic()
    async with flowing(traffic):
        restarted = f"pocket.network/restarted-at={operator.replace(' ', '-')}"
        await on(lambda: kubectl("-n", NAMESPACE, "annotate", "relayminer/trial", "--overwrite", restarted))
        if operator == "is killed in the middle":
            await on(
                await_that, lambda: {p["metadata"]["uid"] for p in trial.pods("relayer")} - old, 60, "a new relayer"
            )
            name = await on(trial.leader)
            await on(lambda: kubectl("-n", "pocket-system", "delete", "pod", name, "--grace-period=0", "--force"))
            assert old & {p["metadata"]["uid"] for p in await on(trial.pods, "relayer")}, "in the middle"
        await on(
            await_that, lambda: not old & {p["metadata"]["uid"] for p in trial.get("pods")["items"]}, 150, "rolled"
        )
        await on(trial.ready)
    assert not traffic.failures, traffic.failures
    with capsys.disabled():
        sys.stdout.write(
            f"\nrolling update, the operator {operator}: {traffic.acknowledged.total()} relays, 0 failed\n"
        )


async def test_a_canary_stops_a_bad_image_and_lets_a_good_revision_follow_under_load(trial, capsys):
    kubectl = trial.cluster.kubectl

    async def wish(**relayer):
        patch = json.dumps({"spec": {"relayer": relayer}})
        await on(lambda: kubectl("-n", NAMESPACE, "patch", "relayminer/trial", "--type=merge", "-p", patch))

    def condition(kind: str) -> dict:
        rows = trial.get("relayminer", "trial")["status"]["conditions"]
        return next(row for row in rows if row["type"] == kind)

    def tracks() -> Counter[str]:
        return Counter(p["metadata"]["labels"].get("pocket.network/track", "") for p in trial.pods("relayer"))

    await wish(rollout={"strategy": "Canary", "observeSeconds": 6, "readySeconds": 15})
    await on(await_that, lambda: trial.get("configmap", "trial-relayer-revision"), 30, "the revision kept")
    steady = {p["metadata"]["uid"] for p in trial.pods("relayer")}
    traffic = trial.traffic()
    async with flowing(traffic):
        await wish(image="local/there-is-no-such-image:1")
        await on(await_that, lambda: condition("Stalled")["reason"] == "CanaryFailed", 60, "the canary failed")
        assert "not ready within 15 s" in condition("Stalled")["message"]
        assert condition("Ready")["status"] == "True"
        await on(await_that, lambda: tracks() == {"": 1}, 30, "no canary pod left")
        assert {p["metadata"]["uid"] for p in trial.pods("relayer")} == steady
        begun = time.monotonic()
        await wish(image=None, workers=1)
        await on(await_that, lambda: tracks() == {"": 1, "canary": 1}, 30, "a canary beside the other")
        await on(await_that, lambda: not steady & {p["metadata"]["uid"] for p in trial.get("pods")["items"]}, 90,
                 "the others followed")  # fmt: skip
        await on(await_that, lambda: tracks() == {"": 1}, 30, "no canary pod left")
        taken = time.monotonic() - begun
        await on(trial.ready)
    assert not traffic.failures, traffic.failures
    with capsys.disabled():
        sys.stdout.write(f"\ncanary watched for 6 s: rolled out after {taken:.0f} s under load, 0 relays failed\n")


async def test_a_killed_miner_pod_costs_nothing(trial):
    traffic = trial.traffic()
    async with flowing(traffic, 20):
        for _ in range(2):
            await traffic.acknowledges(60)
            await on(lambda: trial.cluster.kubectl(
                "-n", NAMESPACE, "delete", "pod", "trial-miner-0", "--grace-period=0", "--force"))  # fmt: skip
            await on(trial.ready)
    assert not traffic.failures, traffic.failures


async def test_a_killed_operator_and_its_upgrade_leave_the_pods_alone(trial, capsys):
    kubectl, leader = trial.cluster.kubectl, trial.leader
    first = await on(leader)
    pods = {p["metadata"]["uid"] for p in [*trial.pods("relayer"), *trial.pods("miner")]}
    begun = time.monotonic()
    await on(lambda: kubectl("-n", "pocket-system", "delete", "pod", first, "--grace-period=0", "--force"))
    # The other replica acts: a deleted child comes back.
    await on(lambda: kubectl("-n", NAMESPACE, "delete", "service", "trial-relayer"))
    await on(await_that, lambda: leader() not in ("", first), 30, "another leader")
    await on(await_that, lambda: trial.get("service", "trial-relayer"), 30, "the Service back")
    taken = time.monotonic() - begun
    await on(lambda: kubectl("-n", "pocket-system", "set", "env", "deployment/pocket-operator", "UPGRADE=1"))
    await on(lambda: kubectl("-n", "pocket-system", "rollout", "status", "deployment/pocket-operator", "--timeout=60s"))
    await on(trial.ready)
    with capsys.disabled():
        sys.stdout.write(f"\noperator killed: the other one acted after {taken:.1f} s (at most 20)\n")
    assert taken <= 20
    assert {p["metadata"]["uid"] for p in [*trial.pods("relayer"), *trial.pods("miner")]} == pods


async def test_a_drained_node_loses_nothing(trial):
    if len(trial.get("nodes")["items"]) < 2:
        pytest.skip("one node only")
    kubectl = trial.cluster.kubectl
    await on(lambda: kubectl("-n", NAMESPACE, "scale", "relayminer/trial", "--replicas=2"))
    await on(await_that, lambda: len(trial.pods("relayer")) == 2, 30, "two relayers")
    await on(trial.ready)
    node = trial.pods("miner")[0]["spec"]["nodeName"]
    # Redis, chain and backend of the trial have no replica: they stay where they are.
    traffic = trial.traffic()
    try:
        async with flowing(traffic, 20):
            await on(lambda: kubectl("cordon", node))
            for pod in [p for c in ("relayer", "miner") for p in trial.pods(c) if p["spec"]["nodeName"] == node]:
                name = pod["metadata"]["name"]
                body = json.dumps({"apiVersion": "policy/v1", "kind": "Eviction",
                                   "metadata": {"name": name, "namespace": NAMESPACE}})  # fmt: skip
                await on(
                    lambda n=name, b=body: kubectl(
                        "create", "--raw", f"/api/v1/namespaces/{NAMESPACE}/pods/{n}/eviction", "-f", "-", stdin=b
                    )
                )
                await on(await_that, lambda u=pod["metadata"]["uid"]: u not in {
                    p["metadata"]["uid"] for p in trial.get("pods")["items"]}, 90, f"{name} left")  # fmt: skip
                await on(trial.ready)
    finally:
        await on(lambda: kubectl("uncordon", node))
    assert not traffic.failures, traffic.failures


async def test_a_miners_pod_tells_what_became_of_the_relays(trial):
    traffic = trial.traffic()
    await traffic.send(10)
    await on(await_that, trial.earned, 180, "anything settled")

    def ask(*arguments: str) -> str:
        return trial.cluster.kubectl(
            "-n", NAMESPACE, "exec", "trial-miner-0", "--", "python", "-m", "pocket_miner.console", *arguments
        ).stdout

    assert "none altered" in await on(ask, "ledger", "verify")
    last = json.loads(await on(ask, "ledger", "export", "--settled", "--limit", "1"))
    assert "ended as     settled" in await on(ask, "ledger", "explain", last["session_id"])
    leases = [json.loads(row) for row in (await on(ask, "inspect", "leases", "--json")).splitlines()]
    assert any("trial-miner-0" in row["holder"] for row in leases), leases
    assert "files in /data/copy" in await on(ask, "ledger", "backup", "/data/copy")


COMPILED_AT_EVERY_START = """
import importlib, sys
importlib.import_module(sys.argv[1])
for module in list(sys.modules.values()):
    if type(getattr(module, "__loader__", None)).__name__ == "SourceFileLoader" and module.__name__ != "__main__":
        try:
            with open(module.__cached__, "rb") as bytecode:
                valid = bytecode.read(8)[4] == 1  # whatever the times of the files say
        except (OSError, TypeError):
            valid = False
        if not valid:
            print(module.__name__)
"""


async def test_every_process_starts_from_bytecode(trial):
    """Nothing can be compiled on a read-only file system: it would be done again at every start, for seconds."""
    places = [
        (NAMESPACE, trial.pods(name)[0]["metadata"]["name"], f"pocket_{name}.__main__") for name in ("relayer", "miner")
    ]
    places.append(("pocket-system", await on(trial.leader), "pocket_operator.__main__"))
    kubectl = trial.cluster.kubectl
    for namespace, pod, module in places:
        shown = await on(kubectl, "-n", namespace, "exec", pod, "--", "python", "-c", COMPILED_AT_EVERY_START, module)
        assert shown.stdout == "", (pod, shown.stdout)


async def test_no_output_of_the_cluster_shows_a_key(trial):
    secrets = secrets_of_the_samples()
    assert len(secrets) == 4
    await trial.traffic().send(5)
    kubectl = trial.cluster.kubectl

    def everything() -> str:
        shown = kubectl("-n", NAMESPACE, "get", "rm,sup,cm,deploy,sts,pods,events,leases", "-o", "yaml").stdout
        shown += kubectl("-n", NAMESPACE, "describe", "all,secrets,rm,sup").stdout
        for namespace in (NAMESPACE, "pocket-system"):
            for pod in trial.get("pods", namespace=namespace)["items"]:
                shown += kubectl("-n", namespace, "logs", pod["metadata"]["name"], check=False).stdout
        return shown

    shown = await on(everything)
    assert "pocket-operator" in shown
    assert not [key for key in secrets if key in shown]


async def test_miners_share_suppliers_and_one_takes_over_from_another_in_time_and_loses_nothing(trial, capsys):
    """A miner that shares the shards with a killed one takes over its sessions and finishes them."""
    kubectl = trial.cluster.kubectl
    await on(lambda: kubectl("-n", NAMESPACE, "patch", "relayminer/trial", "--type=merge", "-p",
                             '{"spec":{"miner":{"replicas":2}}}'))  # fmt: skip
    await on(await_that, lambda: len(trial.pods("miner")) == 2, 60, "two miners")
    await on(trial.ready)

    def shares() -> dict[str, int]:
        found = trial.cluster.kubectl("-n", NAMESPACE, "get", "leases", "-l", "pocket.network/lease-group=trial-miner",
                                      "-o", "json").stdout  # fmt: skip
        leases = [row for row in json.loads(found)["items"] if "-shard-" in row["metadata"]["name"]]
        return Counter((row["spec"].get("holderIdentity") or "").partition("_")[0] for row in leases)

    await on(await_that, lambda: shares() == {"trial-miner-0": 8, "trial-miner-1": 8}, 60, "8 shards each")
    first = "trial-miner-1"
    node = next(p for p in trial.pods("miner") if p["metadata"]["name"] == first)["spec"]["nodeName"]
    traffic = trial.traffic()
    async with flowing(traffic, 20):
        await traffic.acknowledges(40)
        await on(lambda: kubectl("cordon", node))
        begun = time.monotonic()
        try:
            # Cordoned, and its volume bound there or not: the pod may come back late, the other one need not wait.
            await on(lambda: kubectl("-n", NAMESPACE, "delete", "pod", first, "--grace-period=0", "--force"))
            await on(await_that, lambda: shares() == {"trial-miner-0": 16}, 30, "another miner")
            taken = time.monotonic() - begun
        finally:
            await on(lambda: kubectl("uncordon", node))
    assert not traffic.failures, traffic.failures
    with capsys.disabled():
        sys.stdout.write(f"\nminer killed: the other one has its shards after {taken:.1f} s (at most 20)\n")
    assert taken <= 20
