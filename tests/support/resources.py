"""Resources as people write them."""

import base64
import copy
import hashlib
from typing import Any

from pocket.protocol.crypto.addresses import address_of
from pocket.protocol.crypto.ecdsa import PrivateKey

Object = dict[str, Any]
API = "pocket.network/v1beta1"


def key_of(label: str) -> str:
    """Return a repeatable private key."""
    return hashlib.sha256(label.encode()).hexdigest()


def address(label: str) -> str:
    return address_of(PrivateKey.from_hex(key_of(label)).public_key)


def relay_miner(namespace: str, name: str = "main", **spec: Any) -> Object:
    return {
        "apiVersion": API,
        "kind": "RelayMiner",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "chain": {"nodes": [{"grpc": "grpc://node:9090", "rpc": "http://node:26657"}]},
            "redis": {"url": "redis://redis:6379/0"},
            "services": [{"id": "eth", "backends": {"jsonRpc": {"urls": ["http://geth:8545"]}}}],
            **spec,
        },
    }


def supplier(namespace: str, name: str = "alice", relay_miner_name: str = "main", **spec: Any) -> Object:
    return {
        "apiVersion": API,
        "kind": "Supplier",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "relayMinerRef": {"name": relay_miner_name},
            "operatorAddress": address(name),
            "key": {"secretRef": {"name": f"{name}-key", "key": "hex"}},
            **spec,
        },
    }


def secret(namespace: str, name: str, **entries: str) -> Object:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in entries.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "data": data}


def key_secret(namespace: str, label: str = "alice") -> Object:
    return secret(namespace, f"{label}-key", hex=key_of(label))


def changed(original: Object, path: str, value: Any) -> Object:
    """Return a copy with one field set, or removed by `...`.

    `services.0.id` is an example of a path.
    """
    found = copy.deepcopy(original)
    place: Any = found
    *parents, last = path.split(".")
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
    if value is ...:
        del place[last]
    elif isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = value
    return found
