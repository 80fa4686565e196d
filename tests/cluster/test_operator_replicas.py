"""Two replicas, one Lease: takeover in time, no write by a follower, an end rather than a zombie."""

import asyncio
import os
import signal
import sys
import time

import pytest
from waits import all_well, create, leading

from kube import eventually, fetch
from pocket.kube.api_client import ResourceKind
from pocket_operator.resources.kinds import BY_KIND, SUPPLIERS
from resources import address, key_of, key_secret, relay_miner, secret, supplier

LEASES = ResourceKind("coordination.k8s.io/v1", "leases", "Lease")
SERVICE = BY_KIND["Service"]


async def standing_by(replica) -> bool:
    try:
        return not (await asyncio.to_thread(fetch, f"{replica.url}/readyz"))["leads"]
    except OSError:
        return False


async def acts(api, namespace: str) -> None:
    """Wait until a deleted child comes back."""
    await api.delete(SERVICE, namespace, "main-relayer")

    async def back():
        return await api.get_or_none(SERVICE, namespace, "main-relayer")

    await eventually(back, 40)


@pytest.fixture
async def both(api, namespace, replicas, nodes):
    """Two replicas of which the first leads, and a ready RelayMiner."""
    replicas[0].start()
    await eventually(lambda: leading(replicas[0]))
    replicas[1].start()
    await create(api, key_secret(namespace), relay_miner(namespace), supplier(namespace))
    await all_well(api, namespace, "alice")
    await eventually(lambda: standing_by(replicas[1]))
    return replicas


@pytest.mark.parametrize(("number", "limit"), [(signal.SIGTERM, 3.0), (signal.SIGKILL, 20.0)])
async def test_the_other_replica_takes_over_in_time(api, namespace, both, number, limit, capsys):
    lease = await api.get(LEASES, namespace, "pocket-operator")
    os.kill(both[0].child.pid, number)
    both[0].child.wait(20)
    begun = time.monotonic()
    await eventually(lambda: leading(both[1]), 30)
    taken = time.monotonic() - begun
    with capsys.disabled():
        sys.stdout.write(f"\noperator {number.name}: the other replica leads after {taken:.1f} s (at most {limit:g})\n")
    assert taken <= limit
    await acts(api, namespace)
    after = await api.get(LEASES, namespace, "pocket-operator")
    assert after["spec"]["leaseTransitions"] == lease["spec"]["leaseTransitions"] + 1


async def test_a_follower_writes_nothing_and_is_ready(api, namespace, both):
    assert await standing_by(both[1])
    assert "applied" not in both[1].text()


async def test_a_leader_that_was_stopped_ends_instead_of_acting_on(api, namespace, both):
    """SIGSTOP past the lease: when it goes on, another leads, and it must not write again."""
    os.kill(both[0].child.pid, signal.SIGSTOP)
    await eventually(lambda: leading(both[1]), 30)
    os.kill(both[0].child.pid, signal.SIGCONT)
    assert await asyncio.to_thread(both[0].child.wait, 20) == 1
    assert "lost leadership, exiting" in both[0].text()
    await acts(api, namespace)


async def pods_as_the_operator_left_them(api, namespace: str) -> dict[str, tuple[object, ...]]:
    """Return what an operator could change in each pod.

    The status belongs to the kubelet and the controllers.
    """
    rows = (await api.call("GET", f"/api/v1/namespaces/{namespace}/pods"))["items"]
    return {
        row["metadata"]["name"]: (
            row["metadata"]["uid"], row["metadata"].get("annotations") or {}, row["metadata"]["labels"], row["spec"]
        )
        for row in rows
    }  # fmt: skip


async def test_without_the_operator_the_data_plane_is_left_alone(api, namespace, both):

    async def annotated():
        pods = await pods_as_the_operator_left_them(api, namespace)
        return len(pods) >= 2 and all("pocket.network/keys-digest" in row[1] for row in pods.values())

    await eventually(annotated)
    for replica in both:
        replica.stop(kill=True)
    before = await pods_as_the_operator_left_them(api, namespace)
    writes = len(both[0].cluster.writes_of(f"system:serviceaccount:{namespace}:pocket-operator"))
    await asyncio.to_thread(both[0].start)
    await eventually(lambda: leading(both[0]), 30)
    await acts(api, namespace)
    assert await pods_as_the_operator_left_them(api, namespace) == before
    after = both[0].cluster.writes_of(f"system:serviceaccount:{namespace}:pocket-operator")[writes:]
    assert [row for row in after if row.split()[1] == "pods"] == []


def memory_mb(pid: int) -> float:
    with open(f"/proc/{pid}/status", encoding="ascii") as status:  # noqa: PTH123 - a kernel file
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))


@pytest.mark.timeout(600)
async def test_many_suppliers_are_reconciled_with_few_writes_in_200_mb(api, namespace, replicas, nodes, capsys):
    """Reconcile many Suppliers with at most 5 writes each.

    The duration is only printed (`SUPPLIERS=1000`).
    """
    number = int(os.environ.get("SUPPLIERS", "200"))
    nodes.running = False
    await create(api, relay_miner(namespace), *(
        secret(namespace, f"keys-{n}", **{f"k{i}": key_of(f"s{i}") for i in range(n, n + 100)})
        for n in range(0, number, 100)
    ))  # fmt: skip
    gate = asyncio.Semaphore(16)

    async def one(n: int) -> None:
        body = supplier(
            namespace, f"s{n}", operatorAddress=address(f"s{n}"),
            key={"secretRef": {"name": f"keys-{n // 100 * 100}", "key": f"k{n}"}},
        )  # fmt: skip
        async with gate:
            await api.create(SUPPLIERS, namespace, body)

    async with asyncio.TaskGroup() as group:
        for n in range(number):
            group.create_task(one(n))
    operator = replicas[0].start()
    begun = time.monotonic()

    async def every_one():
        rows = await api.list(SUPPLIERS, namespace)
        done = sum((row.get("status") or {}).get("observedGeneration") == 1 for row in rows)
        return done == number

    # Listing a thousand often would measure the API server's answers to this test.
    await eventually(every_one, 90 + number / 4, "all Suppliers have a status", pause=2.0)
    seconds, peak = time.monotonic() - begun, memory_mb(operator.child.pid)
    writes = operator.cluster.writes_of(f"system:serviceaccount:{namespace}:pocket-operator")
    per_supplier = sum(" suppliers" in row for row in writes) / number
    with capsys.disabled():
        sys.stdout.write(
            f"\n{number} Suppliers reconciled {seconds:.0f} s after start, {peak:.0f} MB (at most 200), "
            f"{per_supplier:.1f} writes each (at most 5)\n"
        )
    assert peak <= 200
    assert per_supplier <= 5
