"""Measure the start of the operator over many Suppliers.

It has a real API server, a slow way to it, and pods that run at once. Prints when it leads, when the first child is
there, when each Supplier has a status, and when each is Ready.
"""

import argparse
import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import yaml

from benchmarks.machine import cpu_seconds, resident_mib
from kube import NAMESPACES, ROOT, Cluster, assets, condition, kubeconfig_of, kubelet, started
from nodes import await_that
from pocket.kube.api_client import KubeApi
from pocket.runtime.concurrency import map_bounded
from pocket_operator import install
from pocket_operator.resources.kinds import BY_KIND, EVENTS, LEASES, RELAY_MINERS, SECRETS, SUPPLIERS
from relayctl.local_ports import free_port
from resources import address, key_of, relay_miner, secret, supplier
from slow_api import late

_KEYS_IN_A_SECRET = 500
_NAMESPACE = "bench"


async def _declare(api: KubeApi, number: int) -> None:
    """Create a RelayMiner with many Suppliers.

    Their keys lie in Secrets of some hundreds.
    """
    people = [f"s{n}" for n in range(number)]
    for first in range(0, number, _KEYS_IN_A_SECRET):
        rows = {who: key_of(who) for who in people[first : first + _KEYS_IN_A_SECRET]}
        await api.create(SECRETS, _NAMESPACE, secret(_NAMESPACE, f"keys-{first // _KEYS_IN_A_SECRET}", **rows))

    async def create(row: tuple[int, str]) -> None:
        place, who = row
        key = {"secretRef": {"name": f"keys-{place // _KEYS_IN_A_SECRET}", "key": who}}
        await api.create(SUPPLIERS, _NAMESPACE, supplier(_NAMESPACE, who, operatorAddress=address(who), key=key))

    await map_bounded(create, enumerate(people), 16)
    await api.create(RELAY_MINERS, _NAMESPACE, relay_miner(_NAMESPACE))


def _operator(kubeconfig: Path, log: Path) -> subprocess.Popen[bytes]:
    command = [
        sys.executable, "-m", "pocket_operator", "--namespace", _NAMESPACE, "--own-namespace", _NAMESPACE,
        "--health-host", "127.0.0.1", "--health-port", str(free_port()),
    ]  # fmt: skip
    with log.open("wb") as output:
        return subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, "KUBECONFIG": str(kubeconfig)}
        )


async def _observe(api: KubeApi, child: subprocess.Popen[bytes], number: int, seconds: float) -> None:
    """Print each stage when it is reached, then what the operator used."""
    began, peak = time.monotonic(), 0.0
    waiting = ["leads", "first child", "each has a status", "each is Ready"]
    while waiting and time.monotonic() - began < seconds:
        if child.poll() is not None:
            print(f"the operator ended with {child.returncode} after {time.monotonic() - began:.0f} s")
            return
        peak = max(peak, resident_mib(child.pid))
        lease = await api.get_or_none(LEASES, _NAMESPACE, "pocket-operator")
        reached = {"leads": lease is not None}
        if waiting[0] == "first child":
            reached[waiting[0]] = await api.get_or_none(BY_KIND["Deployment"], _NAMESPACE, "main-relayer") is not None
        elif len(waiting) <= 2:
            rows = [condition(row, "Ready") for row in await api.list(SUPPLIERS, _NAMESPACE)]
            reached["each has a status"] = all(rows)
            reached["each is Ready"] = all(row.get("status") == "True" for row in rows)
        while waiting and reached.get(waiting[0]):
            print(f"{waiting.pop(0)}: {time.monotonic() - began:.0f} s", flush=True)
        await asyncio.sleep(0.5 if number <= 1000 else 3.0)
    if waiting:
        rows = [condition(row, "Ready") for row in await api.list(SUPPLIERS, _NAMESPACE)]
        print(f"not within {seconds:g} s: {', '.join(waiting)}; {Counter(str(row.get('reason')) for row in rows)}")
    lease = await api.get(LEASES, _NAMESPACE, "pocket-operator")
    events = await api.list(EVENTS, _NAMESPACE)
    print(f"CPU {cpu_seconds(child.pid):.0f} s, resident {peak:.0f} MiB at most")
    print(f"changes of the Lease: {lease['spec']['leaseTransitions']}, Events: {len(events)}")


@contextlib.asynccontextmanager
async def _cluster(folder: Path) -> AsyncIterator[tuple[Cluster, KubeApi]]:
    programs = assets()
    if programs is None:
        raise SystemExit("no control plane: build one with hack/kubernetes/prepare")
    with started(programs[0], folder / "state", controllers=programs[1]) as cluster:
        cluster.kubectl("apply", "--server-side", "-k", str(ROOT / "crds"))
        for plural in ("relayminers", "suppliers"):
            await_that(lambda p=plural: cluster.kubectl("get", p, "-A", check=False).returncode == 0, 60, plural)
        async with cluster.api() as api:
            await api.create(NAMESPACES, "", {"metadata": {"name": _NAMESPACE}})
            yield cluster, api


async def _measure(number: int, round_trip_seconds: float, seconds: float, log: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="operator-start-"))
    try:
        async with _cluster(folder) as (cluster, api):
            rights = install.rights(install.Values(namespace=_NAMESPACE), cluster_wide=False)
            cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(rights))
            await _declare(api, number)
            account = kubeconfig_of(cluster, _NAMESPACE, install.NAME, folder / "operator.kubeconfig")
            async with kubelet(api, _NAMESPACE), late(account, round_trip_seconds / 2) as slow:
                child = _operator(slow, log)
                try:
                    await _observe(api, child, number, seconds)
                finally:
                    child.kill()
                    child.wait()
                    await asyncio.sleep(round_trip_seconds)  # until the slow way has ended its connections
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suppliers", type=int, default=1000)
    parser.add_argument("--round-trip", type=float, default=0.5, help="seconds")
    parser.add_argument("--seconds", type=float, default=480.0, help="end after")
    parser.add_argument("--log", type=Path, default=Path(os.devnull), help="where the operator logs")
    chosen = parser.parse_args(arguments)
    asyncio.run(_measure(chosen.suppliers, chosen.round_trip, chosen.seconds, chosen.log))


if __name__ == "__main__":
    main()
