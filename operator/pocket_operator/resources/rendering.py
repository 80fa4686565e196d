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
_OTHER_CHAIN: Final = {
    **_CHAIN, "id": "a", "blockSeconds": 10, "gasPrice": "0.1upokt", "gasAdjustment": 2, "maxTransactionBytes": 524288,
    "queryTimeoutSeconds": 3,
}  # fmt: skip
_BACKEND: Final = {"urls": ["http://a"], "auth": {"type": "bearer", "secretRef": {"name": "a"}}}
_SERVICES: Final = [{"id": "a", "backends": {"jsonRpc": {"urls": ["http://a"]}}}]
_RELAYER: Final = {
    "workers": 3, "port": 8081, "recording": "fast", "webSocketHandshake": "enforce", "drainSeconds": 40,
    "hungWorkerSeconds": 20, "metering": {"enabled": True, "whenUnavailable": "closed"},
    "connections": {"total": 100, "perAddress": 50, "idleSeconds": 60, "memoryBytes": 134217728},
    "resources": _RESOURCES, "podTemplate": _POD_TEMPLATE,
}  # fmt: skip
_MINER: Final = {
    "shards": 4, "checkEndpoints": False, "retentionDays": 30, "sealAfterBlocks": 2, "resources": _RESOURCES,
    "podTemplate": _POD_TEMPLATE,
}  # fmt: skip
_REFERENCES: Final[tuple[dict[str, Any], ...]] = (
    {"chain": _CHAIN, "redis": {"trial": {}}, "services": _SERVICES},
    {
        "chain": _OTHER_CHAIN, "prefix": "a", "debug": True, "relayer": _RELAYER, "miner": _MINER,
        "redis": {
            "urlSecretRef": {"name": "a", "key": "b"}, "durability": "aof",
            "credentialsSecretRef": {"name": "a", "usernameKey": "b", "passwordKey": "c"},
            "caBundle": {"secretRef": {"name": "a", "key": "b"}},
        },
        "signer": {"url": "https://a", "tlsSecretRef": {"name": "a"}, "timeoutSeconds": 3, "connections": 5},
        "services": [{"id": "a", "backends": {"jsonRpc": _BACKEND}}],
    },
    {
        "chain": _CHAIN, "services": _SERVICES,
        "redis": {
            "sentinel": {"addresses": ["a"], "database": 2, "tls": True, "service": "b"},
            "caBundle": {"configMapRef": {"name": "a", "key": "b"}},
        },
    },
    {"chain": _CHAIN, "redis": {"cluster": {"addresses": ["a"], "tls": True}}, "services": _SERVICES},
    {"chain": _CHAIN, "redis": {"url": "redis://a"}, "services": _SERVICES},
    {
        "chain": _CHAIN, "services": _SERVICES,
        "redis": {"trial": {"storage": "2Gi", "resources": _RESOURCES, "podTemplate": _POD_TEMPLATE}},
    },
)  # fmt: skip
"""RelayMiners that between them set every field that reaches a pod template, one with defaults only."""


def declared_revisions(context: Context) -> dict[str, Revision]:
    """Return what the RelayMiner declares, by component."""
    revisions = {names.RELAYER: relayer.revision(context), names.MINER: miner.revision(context)}
    if context.relay_miner.spec.redis.trial is not None:
        revisions[names.REDIS] = trial_redis.revision(context)
    return revisions


@cache
def rendering_digest(pull_policy: str) -> str:
    """Return a digest of how this release renders resources, ten hex digits.

    Releases that render the same resource differently have different ones. Images are no part of it. `pull_policy` is
    the operator's.
    """
    rows = []
    for spec in _REFERENCES:
        body = {"metadata": {"name": "reference", "namespace": "reference"}, "spec": spec}
        context = Context(
            RelayMiner.model_validate(body), "reference",
            Images("relayer", "miner", redis="redis", pull_policy=pull_policy), "reference",
            redis_digest="a" if "urlSecretRef" in spec["redis"] else "", restarted_at="a",
        )  # fmt: skip
        rows.append({component: revision.name for component, revision in declared_revisions(context).items()})
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:10]
