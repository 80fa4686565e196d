"""Every field of the resources with values that it cannot have, or hardly: what the API server has to answer for."""

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pocket.api.crd import definitions
from resources import address, relay_miner, supplier

Object = dict[str, Any]
KEY = "02" + "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
OTHER_KEY = "02" + "c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5"
_RESOURCES = {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}
_TEMPLATE = {
    "labels": {"tier": "edge"}, "annotations": {"example.org/a": "b"}, "nodeSelector": {"disk": "fast"},
    "tolerations": [{"key": "relays", "operator": "Exists"}], "affinity": {"nodeAffinity": {}},
    "topologySpreadConstraints": [{"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}],
    "priorityClassName": "high", "imagePullSecrets": [{"name": "registry"}], "terminationGraceSeconds": 60,
    "spec": {"hostNetwork": False},
}  # fmt: skip
_METRIC = {
    "type": "Pods",
    "pods": {"metric": {"name": "relays"}, "target": {"type": "AverageValue", "averageValue": "5"}},
}
_AUTOSCALING = {
    "minReplicas": 2, "maxReplicas": 6, "targetCpuPercent": 80, "metrics": [_METRIC], "scaleDownSeconds": 300,
}  # fmt: skip
_PEER = {"podSelector": {"matchLabels": {"app": "gateway"}}}
_BACKEND = {
    "strategy": "round_robin", "dialTimeoutSeconds": 5, "unhealthyThreshold": 3, "recoverySeconds": 10,
    "headers": {"X-A": "b"}, "auth": {"type": "header", "secretRef": {"name": "auth"}, "header": "X-Key"},
    "timeoutSeconds": 10, "maxRetries": 1, "urls": ["http://geth:8545"], "basePath": "/v1", "maxConnections": 100,
    "healthCheck": {
        "method": "POST", "path": "/health", "body": "{}", "expectStatus": [200], "expectBody": "ok",
        "intervalSeconds": 5, "timeoutSeconds": 2, "unhealthyThreshold": 3, "healthyThreshold": 2,
        "freshness": {"field": "result", "maxBehindBlocks": 5},
    },
}  # fmt: skip
_STREAM = {k: v for k, v in _BACKEND.items() if k not in ("timeoutSeconds", "maxRetries", "basePath", "healthCheck")}
_GRPC = {k: v for k, v in _BACKEND.items() if k not in ("basePath", "healthCheck", "maxConnections")}
_SERVICE = {
    "id": "eth", "validation": "eager", "defaultBackend": "jsonRpc", "maxBodyBytes": 1000, "serviceFactor": 0.5,
    "replays": "refuse", "rateLimit": {"relaysPerSecond": 10},
    "applications": {"allow": [address("app")]},
    "backends": {
        "jsonRpc": _BACKEND, "rest": _BACKEND, "cometBft": _BACKEND,
        "webSocket": _STREAM | {"urls": ["ws://geth:8546"]}, "grpc": _GRPC | {"urls": ["grpc://geth:9090"]},
    },
}  # fmt: skip
FULL_RELAY_MINER = relay_miner(
    "default",
    chain={
        "id": "pocket", "nodes": [{"grpc": "grpc://node:9090", "rpc": "http://node:26657"}], "blockSeconds": 30,
        "gasPrice": "0.000001upokt", "gasAdjustment": 1.5, "maxTransactionBytes": 1048576, "queryTimeoutSeconds": 5,
    },
    redis={
        "url": "redis://redis:6379/0", "durability": "aof", "caBundle": {"configMapRef": {"name": "ca", "key": "ca"}},
        "credentialsSecretRef": {"name": "redis", "usernameKey": "user", "passwordKey": "password"},
    },
    prefix="main", services=[_SERVICE],
    relayer={
        "autoscaling": _AUTOSCALING, "workers": 2, "port": 8545, "recording": "strict",
        "metering": {"enabled": True, "whenUnavailable": "open"}, "webSocketHandshake": "log", "logLevel": "info",
        "simulation": {
            "enabled": True, "maxConcurrent": 4, "freshnessSeconds": 60,
            "identities": [{
                "keyId": "canary", "enabled": True, "notAfter": "2027-01-31T00:00:00Z", "maxPerSecond": 5,
                "applicationPublicKey": KEY, "gatewayPublicKeys": [OTHER_KEY], "services": ["eth"],
            }],
        },
        "responseCompression": {"enabled": True, "minBytes": 1000},
        "connections": {"total": 1000, "perAddress": 10, "idleSeconds": 60, "memoryBytes": 67108864},
        "drainSeconds": 12.5, "hungWorkerSeconds": 30, "image": "example.org/relayer:1",
        "rollout": {
            "strategy": "Canary", "observeSeconds": 60, "readySeconds": 600, "maxMoreErrorsPercent": 1,
            "maxLatencyFactor": 2,
        },
        "resources": _RESOURCES, "service": {"type": "NodePort", "port": 443, "annotations": {"lb": "internal"}},
        "ingress": {"host": "a.example.org", "className": "nginx", "tlsSecretName": "tls", "annotations": {"a": "b"}},
        "gateway": {
            "parentRefs": [{
                "group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "gw", "name": "public",
                "sectionName": "https", "port": 443,
            }],
            "hostnames": ["a.example.org"],
        },
        "podTemplate": _TEMPLATE,
    },
    miner={
        "autoscaling": _AUTOSCALING, "shards": 16, "storage": "10Gi", "storageClassName": "fast",
        "checkEndpoints": True, "retentionDays": 30, "sealAfterBlocks": 2, "image": "example.org/miner:1",
        "resources": _RESOURCES, "podTemplate": _TEMPLATE,
    },
    signer={"url": "https://signer:8443", "timeoutSeconds": 2, "connections": 4, "tlsSecretRef": {"name": "tls"}},
    monitoring={
        "podMonitor": True, "rules": True, "labels": {"a": "b"}, "dashboards": True, "dashboardLabels": {"a": "b"},
    },
    networkPolicy={"enabled": True, "relaysFrom": [_PEER], "metricsFrom": [_PEER], "consoleFrom": [_PEER]},
    console={
        "hosts": ["console.example.org"], "blockUrl": "https://e.org/{height}", "transactionUrl": "https://e.org/{hash}",
        "dashboardsUrl": "https://grafana.example.org", "port": 8090, "image": "example.org/console:1",
        "resources": _RESOURCES, "podTemplate": {k: v for k, v in _TEMPLATE.items() if k != "spec"},
    },
    deletion={"drainDeadlineSeconds": 3600}, updateStrategy="automatic", progressDeadlineSeconds=600, debug=False,
    paused=False,
)  # fmt: skip
_STAKE = {
    "policy": "Apply", "state": "Staked", "amountUpokt": 60000000000, "owner": address("owner"),
    "services": [{
        "id": "eth", "endpoints": [{"url": "https://a.example.org", "rpcType": "jsonRpc"}],
        "revenueShares": [{"address": address("owner"), "percent": 100}],
    }],
    "revenueShares": [{"address": address("owner"), "percent": 100}], "defaultsFrom": {"name": "other"},
    "budgetUpokt": 1000, "minIntervalSeconds": 3600, "keySecretRef": {"name": "owner", "key": "hex"},
}  # fmt: skip
FULL_SUPPLIER = supplier("default", services=["eth"], stake=_STAKE)


def _with(base: Object, path: str, value: Any) -> Object:
    found = copy.deepcopy(base)
    place = found
    *parents, last = path.split(".")
    for part in parents:
        place = place[part]
    if value is ...:
        place.pop(last, None)
    else:
        place[last] = value
    return found


_DENY = _with(FULL_RELAY_MINER, "spec.services", [_SERVICE | {"applications": {"deny": [address("app")]}}])
_SCALED = _with(_with(FULL_RELAY_MINER, "spec.relayer.autoscaling", ...), "spec.relayer.replicas", 2)
BASES = {
    "relayminers": [
        FULL_RELAY_MINER,
        _DENY,
        _with(_with(_SCALED, "spec.miner.autoscaling", ...), "spec.miner.replicas", 2),
        *(
            _with(FULL_RELAY_MINER, "spec.redis", redis)
            for redis in (
                {"urlSecretRef": {"name": "redis", "key": "url"}},
                {"sentinel": {"addresses": ["a:26379"], "service": "main", "database": 1, "tls": True}},
                {"cluster": {"addresses": ["a:6379"], "tls": True}},
                {"trial": {"storage": "1Gi", "resources": _RESOURCES, "podTemplate": _TEMPLATE}},
                {"url": "redis://r:6379/0", "caBundle": {"secretRef": {"name": "ca", "key": "ca"}}},
            )
        ),
    ],
    "suppliers": [
        FULL_SUPPLIER,
        _with(FULL_SUPPLIER, "spec.key", {"sealed": "A" * 80}),
        _with(FULL_SUPPLIER, "spec.key", {"remote": {"publicKey": KEY}}),
    ],
}
_LOCATORS = ("url", "grpc", "rpc", "host", "address", "path", "image")
STRINGS = [7, True, {}, [], None, "", "x" * 5000, " ", "a b", "é€😀", "a\nb", "../..", "${HOME}", "-1"]
URLS = ["http://", "ftp://a", "http://u:p@h", "http://[::1", "http://h:99999", "//h", "HTTP://H", "http://h/a b"]
VALUES = {
    "string": STRINGS,
    "integer": ["5", 1.5, True, {}, [], None, -1, 0, 2**31, 2**53, 2**63, -(2**63)],
    "number": ["5", True, {}, [], None, -1, 0, 1e-300, 1e300],
    "boolean": ["true", 1, {}, [], None],
    "array": [{}, "x", 1, None, [None], [], [{}]],
    "object": [[], "x", 1, None, {"": 1}],
}


def fields(plural: str) -> dict[tuple[str, ...], Object]:
    """Return the schema of each field of a spec, without those within types of Kubernetes."""
    spec = definitions()[plural]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    found: dict[tuple[str, ...], Object] = {}

    def walk(schema: Object, path: tuple[str, ...]) -> None:
        found[path] = schema
        if "externalDocs" in schema:
            return
        for name, child in schema.get("properties", {}).items():
            walk(child, (*path, name))
        if "items" in schema:
            walk(schema["items"], (*path, "0"))
        if isinstance(schema.get("additionalProperties"), dict):
            walk(schema["additionalProperties"], (*path, "*"))

    walk(spec, ("spec",))
    return found


def place_in(base: Object, path: tuple[str, ...]) -> tuple[Any, Any] | None:
    """Return the container of a field and its key there, None if the base lacks it."""
    place: Any = base
    for number, part in enumerate(path):
        key: Any = int(part) if isinstance(place, list) else part
        if part == "*" and isinstance(place, dict) and place:
            key = next(iter(place))
        if (isinstance(place, list) and key >= len(place)) or (isinstance(place, dict) and key not in place):
            return None
        if number == len(path) - 1:
            return place, key
        place = place[key]
    return None


def shown(path: tuple[str, ...], base: Object) -> str:
    """Return a path as the API server shows it."""
    text, place = "", base
    for part in path:
        if isinstance(place, list):
            text, place = f"{text}[{part}]", place[int(part)]
        else:
            key = next(iter(place)) if part == "*" else part
            text, place = f"{text}.{key}" if text else key, place[key]
    return text


def _misspelt(name: str) -> str:
    return name + "s" if not name.endswith("s") else name[:-1]


@dataclass(frozen=True)
class Case:
    """A resource with one wrong or odd field. `field` is its path as the API server shows it."""

    field: str
    value: Any
    base: Object
    path: tuple[str, ...]
    change: Callable[[Any, Any], None]

    def resource(self) -> Object:
        """Return the resource to write."""
        tried = copy.deepcopy(self.base)
        found = place_in(tried, self.path)
        if found is not None:
            self.change(*found)
        return tried


def cases(plural: str) -> Iterator[Case]:
    """Return each case of a kind.

    Fields of the same schema and name in several places, such as the backends of a service, are tried in one of them.
    """
    seen = set[str]()
    for path, schema in fields(plural).items():
        base = next((row for row in BASES[plural] if place_in(row, path) is not None), None)
        if base is None:
            raise LookupError(f"no base of the sweep has {'.'.join(path)}: add it to tests/support/spec_sweep.py")
        digest = path[-1] + json.dumps(schema, sort_keys=True)
        if digest in seen:
            continue
        seen.add(digest)
        field = shown(path, base)
        locator = any(word in ".".join(path[-2:]).lower() for word in _LOCATORS)
        of_objects = schema.get("items", {}).get("type") == "object"
        for value in (*VALUES[schema["type"]], *(URLS if locator and schema["type"] == "string" else ())):
            if value != [{}] or of_objects:
                yield Case(field, value, base, path, _setting(value))
        if schema["type"] == "array":
            yield Case(f"{field}[1]", "twice", base, path, _doubled)
        place, key = place_in(base, path) or ({}, "")
        for name in schema.get("properties", {}) if "externalDocs" not in schema else ():
            if name in place[key]:
                yield Case(f"{field}.{_misspelt(name)}", "misspelt", base, path, _misspelling(name))


def _setting(value: Any) -> Callable[[Any, Any], None]:
    def change(place: Any, key: Any) -> None:
        place[key] = copy.deepcopy(value)

    return change


def _doubled(place: Any, key: Any) -> None:
    place[key] = place[key] * 2


def _misspelling(name: str) -> Callable[[Any, Any], None]:
    def change(place: Any, key: Any) -> None:
        place[key] = {(_misspelt(n) if n == name else n): v for n, v in place[key].items()}

    return change
