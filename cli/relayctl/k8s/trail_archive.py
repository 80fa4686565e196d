"""Copy the audit trails of miners' volumes out of a cluster."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pocket.api.status import AuditHeadStatus
from pocket.errors import PocketError
from pocket_miner.storage.audit import AuditHead
from pocket_miner.storage.outcome_archive import (
    Archived,
    ArchiveError,
    TrailPage,
    append_to_archive,
    missing_heads,
    read_archive,
)
from relayctl.k8s.pod_shell import PodShell


@dataclass(frozen=True, slots=True)
class ArchivedPod:
    """The result of archiving one miner's trail.

    It holds what was added or why nothing was, and which published outcomes are missing.
    """

    pod: str
    done: Archived | None = None
    problem: str = ""


def archive_pod(
    shell: PodShell, namespace: str, pod: str, folder: Path, published: Mapping[str, AuditHead]
) -> ArchivedPod:
    """Append a miner's new outcomes to its trail's file.

    The end is compared with the published head.
    """

    def fetch(after: int) -> TrailPage:
        text = shell.console(namespace, pod, "ledger", "entries", "--after", str(after))
        try:
            return TrailPage.model_validate_json(text)
        except ValidationError:
            raise ArchiveError(f"{pod}: its answer is not a page of a trail") from None

    try:
        done = append_to_archive(folder, fetch)
        head = published.get(pod)
        problems = missing_heads(read_archive(done.file), [head]) if head is not None else []
    except PocketError as error:
        return ArchivedPod(pod, problem=str(error))
    return ArchivedPod(pod, done, "; ".join(problems))


def published_heads_of(relay_miner: Mapping[str, Any]) -> dict[str, AuditHead]:
    """Return the heads in a RelayMiner's status by pod, without unreadable ones."""
    heads = {}
    for row in (relay_miner.get("status") or {}).get("audit") or ():
        try:
            head = AuditHeadStatus.model_validate(row)
        except ValidationError:
            continue
        heads[head.pod] = AuditHead(head.number, head.hash)
    return heads
