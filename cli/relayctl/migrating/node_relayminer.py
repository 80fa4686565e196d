"""Convert the configuration of `pocketd relayminer start` to the Go miner's form.

It is the relay miner of the chain program itself. What that form has too is converted from there on, so one report
covers both.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from pocket.api.base import ManifestError
from relayctl.migrating.setting_values import mapping, sequence

Tree = dict[str, Any]
_RPC_TYPES: Final = {
    "json_rpc": "jsonrpc", "rest": "rest", "comet_bft": "cometbft", "websocket": "websocket", "grpc": "grpc",
}  # fmt: skip
_SIZE: Final = re.compile(r"(\d+)\s*([KMGT]?)I?B?", re.IGNORECASE)
_FACTORS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_DROPPED: Final = {
    "listen_url": "one port serves all services: spec.relayer.port",
    "signing_key_names": "a Supplier's spec.services limits which services a key serves",
    "publicly_exposed_endpoints": "the stake has the public URLs: spec.stake of the Supplier",
    "forward_pocket_headers": "backends always get the Pocket headers",
}  # fmt: skip


def is_node_relayminer(tree: Mapping[str, Any]) -> bool:
    """Return True for the configuration of the chain program's relayminer.

    Its suppliers are a list of services.
    """
    rows = tree.get("suppliers")
    return isinstance(rows, list) and any(isinstance(row, Mapping) and "service_id" in row for row in rows)


def as_relayer(tree: Mapping[str, Any]) -> tuple[Tree, list[tuple[str, str]]]:
    """Return the settings in the Go relayer's form.

    Also returns what was left out, as path and reason. Raises ManifestError.
    """
    left: list[tuple[str, str]] = []
    relayer: Tree = {key: value for key, value in tree.items() if key not in _OWN}
    node = dict(mapping(tree.get("pocket_node"), "pocket_node"))
    if "tx_node_rpc_url" in node:
        left.append(("pocket_node.tx_node_rpc_url", "transactions go to all of spec.chain.nodes"))
        relayer["pocket_node"] = {key: value for key, value in node.items() if key != "tx_node_rpc_url"}
    grpc = str(node.get("query_node_grpc_url") or "")
    if grpc.startswith("tcp://"):
        relayer["pocket_node"] = {
            **relayer["pocket_node"], "query_node_grpc_url": grpc.removeprefix("tcp://"), "grpc_insecure": True,
        }  # fmt: skip
    eager = bool(tree.get("enable_eager_relay_request_validation"))
    relayer["default_validation_mode"] = "eager" if eager else "optimistic"
    if tree.get("enable_over_servicing"):
        relayer["relay_meter"] = {"enabled": False}
    if size := tree.get("default_max_body_size"):
        relayer["default_max_body_size_bytes"] = size_bytes(size, "default_max_body_size")
    relayer["services"] = {}
    for number, entry in enumerate(tree.get("suppliers") or ()):
        row = mapping(entry, f"suppliers[{number}]")
        service, dropped = _service(row, f"suppliers[{number}]")
        relayer["services"][str(row.get("service_id"))] = service
        if seconds := row.get("request_timeout_seconds"):
            name = f"of-{row.get('service_id')}"
            relayer.setdefault("timeout_profiles", {})[name] = {"request_timeout_seconds": seconds}
            service["timeout_profile"] = name
        left += dropped
    return relayer, left


def signing_key_names(tree: Mapping[str, Any]) -> list[str]:
    """Return the names of all keys that sign for any of the services.

    Raises ManifestError.
    """
    names = [*sequence(tree.get("default_signing_key_names"), "default_signing_key_names")]
    for number, entry in enumerate(tree.get("suppliers") or ()):
        path = f"suppliers[{number}]"
        names += sequence(mapping(entry, path).get("signing_key_names"), f"{path}.signing_key_names")
    return list(dict.fromkeys(map(str, names)))


_OWN: Final = frozenset({
    "suppliers", "default_signing_key_names", "enable_eager_relay_request_validation", "enable_over_servicing",
    "default_max_body_size",
})  # fmt: skip


def _service(row: Mapping[str, Any], path: str) -> tuple[Tree, list[tuple[str, str]]]:
    left = [(f"{path}.{name}", reason) for name, reason in _DROPPED.items() if name in row]
    config = mapping(row.get("service_config"), f"{path}.service_config")
    left += [(f"{path}.service_config.{name}", reason) for name, reason in _DROPPED.items() if name in config]
    backends: Tree = {}
    if config.get("backend_url"):
        backends[_kind_of(str(config["backend_url"]))] = _backend(config)
    own_configs = f"{path}.rpc_type_service_configs"
    for name, value in mapping(row.get("rpc_type_service_configs"), own_configs).items():
        own = mapping(value, f"{own_configs}.{name}")
        kind = _RPC_TYPES.get(str(name).lower())
        if kind is None:
            raise ManifestError(f"{path}.rpc_type_service_configs.{name}: known are {', '.join(sorted(_RPC_TYPES))}")
        backends[kind] = _backend(own)
        left += [
            (f"{path}.rpc_type_service_configs.{name}.{key}", reason) for key, reason in _DROPPED.items() if key in own
        ]
    service: Tree = {"backends": backends}
    if size := row.get("max_body_size"):
        service["max_body_size_bytes"] = size_bytes(size, f"{path}.max_body_size")
    return service, left


def _backend(config: Mapping[str, Any]) -> Tree:
    kept = {"authentication": config.get("authentication"), "headers": config.get("headers")}
    return {"url": config.get("backend_url"), **{key: value for key, value in kept.items() if value}}


def _kind_of(url: str) -> str:
    """Return the transport that a backend without one serves.

    It follows from its scheme, else it is JSON-RPC.
    """
    scheme = url.partition("://")[0]
    return {"ws": "websocket", "wss": "websocket", "grpc": "grpc", "grpcs": "grpc"}.get(scheme, "jsonrpc")


def size_bytes(value: Any, path: str) -> int:
    """Return the bytes of a number, or of a text such as 20MB. Raises ManifestError."""
    match = _SIZE.fullmatch(str(value).strip())
    if match is None:
        raise ManifestError(f"{path}: not a size: write bytes, or for example 20MB")
    return int(match[1]) * _FACTORS[match[2].upper()]
