"""Identify how this release of the operator renders pod templates."""

import hashlib
import json
from functools import cache
from typing import Any, Final

from pocket.api.relayminer import RelayMiner
from pocket_operator.resources import miner, names, relayer, trial_redis
from pocket_operator.resources.context import Context, Images
from pocket_operator.resources.revision import Revision

_RESOURCES: Final = {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}
_POD_TEMPLATE: Final = {
    "labels": {"a": "b"}, "annotations": {"a": "b"}, "nodeSelector": {"a": "b"}, "priorityClassName": "a",
    "tolerations": [{"key": "a"}], "affinity": {"podAffinity": {}}, "topologySpreadConstraints": [],
    "imagePullSecrets": [{"name": "a"}], "terminationGraceSeconds": 90,
    "spec": {"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}]},
}  # fmt: skip
_CHAIN: Final = {"nodes": [{"grpc": "grpc://a:1", "rpc": "http://a:2"}]}
_BACKEND: Final = {"urls": ["http://a"], "auth": {"type": "bearer", "secretRef": {"name": "a"}}}
_REFERENCES: Final[tuple[dict[str, Any], ...]] = (
    {"chain": _CHAIN, "redis": {"trial": {}}, "services": [{"id": "a", "backends": {"jsonRpc": {"urls": ["http://a"]}}}]},
    {
        "chain": _CHAIN, "redis": {"urlSecretRef": {"name": "a", "key": "b"}}, "debug": True,
        "services": [{"id": "a", "backends": {"jsonRpc": _BACKEND}}],
        "relayer": {"resources": _RESOURCES, "podTemplate": _POD_TEMPLATE},
        "miner": {"resources": _RESOURCES, "podTemplate": _POD_TEMPLATE},
    },
)  # fmt: skip
"""RelayMiners that between them use every part of a pod template, one with defaults only."""


def declared_revisions(context: Context) -> dict[str, Revision]:
    """Return what the RelayMiner declares, by component."""
    found = {names.RELAYER: relayer.revision(context), names.MINER: miner.revision(context)}
    if context.relay_miner.spec.redis.trial is not None:
        found[names.REDIS] = trial_redis.revision(context)
    return found


@cache
def rendering_digest(pull_policy: str) -> str:
    """Return a digest, ten hex digits, that differs between releases that render the same resource differently.

    Images are no part of it. `pull_policy` is the operator's.
    """
    rows = []
    for spec in _REFERENCES:
        body = {"metadata": {"name": "reference", "namespace": "reference"}, "spec": spec}
        context = Context(
            RelayMiner.model_validate(body), "reference",
            Images("relayer", "miner", redis="redis", pull_policy=pull_policy), "reference",
            redis_digest="a" if "urlSecretRef" in spec["redis"] else "", restarted_at="a",
        )  # fmt: skip
        rows.append({component: found.name for component, found in declared_revisions(context).items()})
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:10]
