"""Write an archive that helps to find a fault.

It has resources, statuses, Events, findings, reports and logs, all redacted.
"""

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import yaml

from pocket.errors import PocketError
from pocket.kube.api_client import KubeApi, KubeError, ResourceKind
from pocket_operator.resources import names
from pocket_operator.resources.kinds import OPTIONAL_CHILDREN, WATCHED_CHILDREN
from relayctl.k8s.cluster_view import ClusterView, Object, namespaced_name
from relayctl.k8s.diagnosis import diagnose
from relayctl.k8s.pod_shell import PodCommandFailed, PodShell
from relayctl.k8s.redaction import Redactor
from relayctl.k8s.supplier_rows import supplier_rows

_KINDS: Final = (*WATCHED_CHILDREN, *OPTIONAL_CHILDREN)
_OURS: Final = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"
Files = Iterator[tuple[str, str]]


class BundleNotWritten(PocketError):
    """The archive could not be written."""


def addresses_of(view: ClusterView) -> frozenset[str]:
    """Return the addresses whose private keys must not be in the archive.

    They are those of suppliers, owners and stake signers.
    """
    addresses: set[Any] = set()
    for supplier in view.suppliers:
        spec, status = supplier.get("spec") or {}, supplier.get("status") or {}
        stake = spec.get("stake") or {}
        plan = (status.get("staking") or {}).get("plan") or {}
        addresses |= {spec.get("operatorAddress"), stake.get("owner"), plan.get("signer"), status.get("address")}
        addresses |= {row.get("recipient") for row in status.get("earned") or ()}
        addresses |= {row.get("address") for row in stake.get("revenueShares") or ()}
    return frozenset(str(address) for address in addresses if address)


def view_files(view: ClusterView) -> Files:
    """Yield the files of the archive by name, before redaction.

    They are made of one reading of the cluster.
    """
    parts: dict[str, Iterable[Object]] = {
        "relayminers": view.relay_miners, "suppliers": view.suppliers, "pods": view.pods,
        "operator-pods": view.operator_pods, "leases": view.leases, "volume-claims": view.claims,
    }  # fmt: skip
    for name, rows in parts.items():
        yield f"resources/{name}.yaml", yaml_of(rows)
    events = sorted(view.events, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
    yield "events.yaml", yaml_of(events)
    yield "status.json", json.dumps(supplier_rows(view), indent=2)
    yield "doctor.json", json.dumps([finding.row() for finding in diagnose(view)], indent=2)


async def child_files(api: KubeApi, view: ClusterView) -> list[tuple[str, str]]:
    """Return the files with the operator's objects, never Secrets.

    A kind that cannot be listed has the error.
    """
    files = []
    for kind in _KINDS:
        files.append((f"children/{kind.plural}.yaml", await _listed(api, kind, view.namespace)))
    return files


async def _listed(api: KubeApi, kind: ResourceKind, namespace: str) -> str:
    try:
        return yaml_of(await api.list(kind, namespace, _OURS))
    except KubeError as error:
        return f"# not listed: {error}\n"


def pod_files(shell: PodShell, view: ClusterView, lines: int) -> Files:
    """Yield reports and logs of all pods. What fails has the error as its content."""
    for pod in (*view.pods, *view.operator_pods):
        namespace, name = namespaced_name(pod)
        component = str((pod["metadata"].get("labels") or {}).get(names.LABEL_COMPONENT, ""))
        folder = f"pods/{namespace}/{name}"
        yield f"{folder}/log.txt", _or_error(partial(shell.logs, namespace, name, lines=lines))
        yield (
            f"{folder}/log-before-restart.txt",
            _or_error(partial(shell.logs, namespace, name, lines=lines, previous=True)),
        )
        if component in (names.RELAYER, names.MINER):
            yield f"{folder}/report.json", _or_error(partial(_report, shell, namespace, name, component))


def _report(shell: PodShell, namespace: str, pod: str, component: str) -> str:
    return json.dumps(shell.report(namespace, pod, component), indent=2)


def _or_error(read: Callable[[], str]) -> str:
    try:
        return read()
    except PodCommandFailed as error:
        return f"# not read: {error}\n"


def yaml_of(rows: Iterable[Any]) -> str:
    """Return objects as YAML documents."""
    return yaml.safe_dump_all(list(rows), sort_keys=False, width=200)


def redacted(name: str, content: str, redactor: Redactor) -> str:
    """Return a file's content without secrets, structured files by their fields."""
    if name.endswith(".yaml"):
        return yaml_of(redactor.value(row) for row in yaml.safe_load_all(content) if row is not None) or content
    if name.endswith(".json"):
        try:
            return json.dumps(redactor.value(json.loads(content)), indent=2)
        except ValueError:
            return redactor.text(content)
    return "\n".join(_line(line, redactor) for line in content.splitlines())


def _line(line: str, redactor: Redactor) -> str:
    """Redact one line of a log.

    A line that ends with a JSON object, which the workloads write, is redacted by fields.
    """
    head, brace, rest = line.partition("{")
    if brace:
        try:
            return redactor.text(head) + json.dumps(redactor.value(json.loads(brace + rest)))
        except ValueError:
            pass
    return redactor.text(line)


def write_bundle(path: Path, files: Iterable[tuple[str, str]], redactor: Redactor, now: datetime) -> list[str]:
    """Write the redacted files into a new archive that only its owner can read.

    Returns their names.

    Raises BundleNotWritten.
    """
    written = []
    root = path.name.removesuffix(".tar.gz")
    try:
        with path.open("xb") as out:
            path.chmod(0o600)
            with tarfile.open(fileobj=out, mode="w:gz") as archive:
                for name, content in files:
                    data = redacted(name, content, redactor).encode()
                    entry = tarfile.TarInfo(f"{root}/{name}")
                    entry.size, entry.mtime, entry.mode = len(data), int(now.timestamp()), 0o600
                    archive.addfile(entry, io.BytesIO(data))
                    written.append(name)
    except OSError as error:
        raise BundleNotWritten(f"{path}: {error.strerror or error}") from None
    return written
