"""Conversion of the Go relay miner's YAML to a RelayMiner and Suppliers.

Pure, with a report of settings without counterpart.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pocket.api.base import ManifestError
from relayctl.migrating.backend_credentials import credential_headers, may_hold_keys
from relayctl.migrating.node_relayminer import as_relayer, is_node_relayminer
from relayctl.migrating.setting_values import as_text, decimal, mapping, seconds, sequence, whole
from relayctl.migrating.source_tree import SourceTree, naming
from relayctl.migrating.urls import (
    Login,
    backend_url,
    grpc_url,
    is_loopback,
    login_of,
    rpc_url,
    split,
    without_logins,
)
from relayctl.migrating.without_counterpart import reason_of

Tree = dict[str, Any]
_TYPES = {
    "jsonrpc": "jsonRpc", "json_rpc": "jsonRpc", "rest": "rest", "cometbft": "cometBft", "comet_bft": "cometBft",
    "websocket": "webSocket", "grpc": "grpc",
}  # fmt: skip
_PROFILE_SECONDS = {"fast": 30.0, "streaming": 600.0}
_STRATEGIES = {"first_healthy": "first_healthy", "round_robin": "round_robin", "": None}

_DEFAULT_BACKENDS = frozenset({"jsonRpc", "rest", "cometBft"})
_LEVELS = {
    "trace": "debug", "debug": "debug", "info": "info", "warn": "warning", "warning": "warning", "error": "error",
    "fatal": "error", "panic": "error", "disabled": "error",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Note:
    """One line of the report. `kind` is changed, left or unknown."""

    kind: str
    path: str
    text: str


@dataclass(slots=True)
class Migration:
    """The converted configuration.

    `secrets` holds name → entries and gets its own file.
    """

    relay_miner: Tree
    notes: list[Note] = field(default_factory=list)
    secrets: dict[str, dict[str, str]] = field(default_factory=dict, repr=False)


class _Converter:
    def __init__(self, relayer: SourceTree, miner: SourceTree, name: str, namespace: str) -> None:
        self.relayer, self.miner = relayer, miner
        self.name, self.namespace = name, namespace
        self.notes: list[Note] = []
        self.secrets: dict[str, dict[str, str]] = {}

    def note(self, kind: str, path: str, text: str) -> None:
        self.notes.append(Note(kind, path, text))

    def either(self, path: str, default: Any = None, form: Callable[[Any], Any] = lambda value: value) -> Any:
        """Read a setting of both files. The relayer's wins, and a difference is noted.

        `form` converts values to compare: two ways to write one address are no difference.
        """
        first, second = self.relayer.take(path), self.miner.take(path)
        if first is not None and second is not None and form(first) != form(second):
            value = "" if "@" in str(first) else f" {first!r}"
            self.note("changed", path, f"relayer and miner differ; the relayer's{value} is used")
        value = first if first is not None else second
        return default if value is None else value

    def chain(self) -> Tree:
        insecure = bool(self.either("pocket_node.grpc_insecure", False))
        grpc = self._node("query_node_grpc_url", lambda url: grpc_url(str(url), insecure=insecure))
        rpc = self._node("query_node_rpc_url", lambda url: rpc_url(str(url)))
        chain: Tree = {
            "id": self.either("pocket_node.chain_id", "pocket"),
            "nodes": [{"grpc": grpc, "rpc": rpc}],
        }
        for path in ("pocket_node.query_timeout_seconds", "pocket_node.query_timeout"):
            if (value := self.either(path)) is not None:
                chain["queryTimeoutSeconds"] = seconds(value, path)
        for path, name in (("transaction.gas_price", "gasPrice"), ("transaction.gas_adjustment", "gasAdjustment")):
            if (value := self.miner.take(path)) is not None:
                chain[name] = value
        for path in ("block_time_seconds", "block_time"):
            if (value := self.miner.take(path)) is not None:
                chain["blockSeconds"] = seconds(value, path)
        return chain

    def _node(self, name: str, form: Callable[[Any], str]) -> str:
        """Return the URL of a chain node.

        Raises ManifestError if it is missing or has a login.
        """
        with naming(f"pocket_node.{name}"):
            url = self.either(f"pocket_node.{name}", form=form)
            if not url:
                raise ManifestError("not set: name the address of a chain node")
            if login_of(str(url)) is not None:
                raise ManifestError(
                    "holds a login, which spec.chain.nodes cannot: name a node that needs none, or a proxy of your own "
                    "that adds it"
                )
            self._note_loopback(f"pocket_node.{name}", str(url))
            return form(url)

    def _note_loopback(self, path: str, *urls: str) -> None:
        if any(map(is_loopback, urls)):
            self.note("changed", path, "names this machine: write the address that pods can reach")

    def redis(self) -> Tree:
        url = str(self.either("redis.url", "redis://localhost:6379"))
        with naming("redis.url"):
            parts = split(url)
        if not parts.scheme:
            raise ManifestError("redis.url: write redis://host:port, with every variable filled in")
        if parts.scheme not in ("redis", "rediss"):
            raise ManifestError(
                f"redis.url: {parts.scheme}:// is not supported; name one server, redis:// or rediss://"
            )
        self._note_loopback("redis.url", url)
        if parts.username or parts.password:
            name = f"{self.name}-redis"
            self.secrets[name] = {"url": url}
            self.note("changed", "redis.url", f"holds credentials: moved to Secret {name}")
            return {"urlSecretRef": {"name": name, "key": "url"}}
        return {"url": url}

    def services(self) -> list[Tree]:
        return [self._service(service_id) for service_id in self.relayer.names("services")]

    def _service(self, service_id: str) -> Tree:
        take, path = self.relayer.take, f"services.{service_id}"
        default_mode, default_limit = take("default_validation_mode"), take("default_max_body_size_bytes")
        default_factor = self.miner.take("default_service_factor")
        mode = take(f"{path}.validation_mode") or default_mode or "optimistic"
        service: Tree = {"id": service_id, "validation": mode}
        if mode == "optimistic":
            text = "validated while the backend works and before the response; the Go relayer responds first"
            self.note("changed", f"{path}.validation_mode", text)
        limit = take(f"{path}.max_body_size_bytes") or default_limit
        if limit:
            service["maxBodyBytes"] = whole(limit, f"{path}.max_body_size_bytes")
        if default := take(f"{path}.default_backend"):
            self._default_backend(service, path, str(default))
        factor = self.miner.take(f"service_factors.{service_id}")
        factor = factor if factor is not None else default_factor
        if factor:
            service["serviceFactor"] = decimal(factor, f"service_factors.{service_id}")
        profile = str(take(f"{path}.timeout_profile") or "")
        shared = {
            "timeout": self._timeout(profile), "dial": self._dial(profile),
            "pool": self._pool(str(take(f"{path}.pool_profile") or "")),
        }  # fmt: skip
        backends: Tree = {}
        for kind in self.relayer.names(f"{path}.backends"):
            name = _TYPES.get(kind.lower())
            if name is None:
                self.note("unknown", f"{path}.backends.{kind}", f"known transports: {', '.join(sorted(_TYPES))}")
                continue
            backends[name] = self._backend(service_id, kind, name, shared)
        if not backends:
            raise ManifestError(f"{path}: no backend: name at least one")
        service["backends"] = backends
        return service

    def _default_backend(self, service: Tree, path: str, default: str) -> None:
        """Take the transport of requests that name none.

        WebSocket and gRPC are recognised without it.
        """
        name = _TYPES.get(default.lower())
        if name in _DEFAULT_BACKENDS:
            service["defaultBackend"] = name
        elif name is None:
            known = ", ".join(sorted(_TYPES))
            self.note("unknown", f"{path}.default_backend", f"{default!r} is no transport: known are {known}")
        else:
            text = (
                f"{default}: WebSocket upgrades and gRPC requests are recognised without a default; other requests "
                "without the header Rpc-Type are rejected"
            )
            self.note("changed", f"{path}.default_backend", text)

    def _timeout(self, profile: str) -> float:
        path = "default_request_timeout_seconds"
        default = seconds(self.relayer.take(path, 30), path)
        if not profile:
            return default
        path = f"timeout_profiles.{profile}.request_timeout_seconds"
        if (own := self.relayer.take(path)) is not None:
            return seconds(own, path)
        if profile not in _PROFILE_SECONDS:
            self.note("unknown", f"timeout_profiles.{profile}", f"not defined; {default:g} s are used")
        return _PROFILE_SECONDS.get(profile, default)

    def _dial(self, profile: str) -> float | None:
        """Return the seconds to connect, of the profile or of the transport.

        The result is None for the default.
        """
        own = self.relayer.take(f"timeout_profiles.{profile}.dial_timeout_seconds") if profile else None
        common = self.relayer.take("http_transport.dial_timeout_seconds")
        value = own if own is not None else common
        return seconds(value, "dial_timeout_seconds") or None if value is not None else None

    def _pool(self, profile: str) -> int | None:
        own = self.relayer.take(f"pool_profiles.{profile}.max_conns_per_host") if profile else None
        common = self.relayer.take("http_transport.max_conns_per_host")
        value = own or common
        return whole(value, "max_conns_per_host") if value else None

    def _backend(self, service_id: str, kind: str, name: str, shared: Mapping[str, Any]) -> Tree:
        path = f"services.{service_id}.backends.{kind}"
        take = self.relayer.take
        with naming(f"{path}.urls"):
            urls, login = self._urls(path)
            backend: Tree = {"urls": [backend_url(url, name) for url in urls]}
            self._note_loopback(f"{path}.urls", *urls)
        if shared["dial"] is not None:
            backend["dialTimeoutSeconds"] = shared["dial"]
        if strategy := self._strategy(path):
            backend["strategy"] = strategy
        if (recovery := take(f"{path}.recovery_timeout_seconds", take(f"{path}.recovery_timeout"))) is not None:
            backend["recoverySeconds"] = seconds(recovery, f"{path}.recovery_timeout")
        headers = {str(key): str(value) for key, value in mapping(take(f"{path}.headers"), f"{path}.headers").items()}
        auth = self._auth(_object_name(f"{self.name}-{service_id}-{name}"), path, headers, login)
        backend |= {key: value for key, value in (("auth", auth), ("headers", headers)) if value}
        if name != "webSocket":
            backend["timeoutSeconds"] = shared["timeout"]
            if (retries := take(f"{path}.max_retries")) is not None:
                backend["maxRetries"] = whole(retries, f"{path}.max_retries")
        if name in ("jsonRpc", "rest", "cometBft"):
            if base := take(f"{path}.base_path"):
                backend["basePath"] = str(base)
            if shared["pool"]:
                backend["maxConnections"] = shared["pool"]
            if check := self._health_check(path):
                backend["healthCheck"] = check
        self._keys_in_urls(path, backend)
        return backend

    def _keys_in_urls(self, path: str, backend: Tree) -> None:
        if may_hold_keys(backend["urls"], backend.get("basePath", "")):
            text = "a path or query may hold a key and stays in relayminer.yaml: keep that file out of Git if it does"
            self.note("changed", f"{path}.urls", text)

    def _strategy(self, path: str) -> str | None:
        """Return how endpoints are chosen, None for the default."""
        strategy = str(self.relayer.take(f"{path}.load_balancing") or "")
        if strategy not in _STRATEGIES:
            self.note("changed", f"{path}.load_balancing", f"{strategy}: not supported, the default is used")
        return _STRATEGIES.get(strategy)

    def _urls(self, path: str) -> tuple[list[str], Login | None]:
        """Return the endpoints and their login.

        Endpoints are texts, or objects with url and name. Raises ManifestError if their logins differ, without the
        path.
        """
        urls, named = [], False
        for number, row in enumerate(sequence(self.relayer.take(f"{path}.urls"))):
            if not isinstance(row, Mapping):
                urls.append(str(row))
                continue
            urls.append(str(row.get("url") or ""))
            named = named or bool(row.get("name"))
            for other in sorted(set(map(str, row)) - {"url", "name"}):
                self.note("unknown", f"relayer: {path}.urls[{number}].{other}", "unknown setting, ignored")
        if named:
            self.note("left", f"relayer: {path}.urls", "endpoints have no names: metrics and logs show their URLs")
        return without_logins(urls or [str(self.relayer.take(f"{path}.url") or "")])

    def _auth(self, secret: str, path: str, headers: dict[str, str], login: Login | None) -> Tree | None:
        """Move `authentication`, the URLs' login or one of the headers to a Secret."""
        take = self.relayer.take
        user, password = take(f"{path}.authentication.username"), take(f"{path}.authentication.password")
        bearer, plain = take(f"{path}.authentication.bearer_token"), take(f"{path}.authentication.plain_token")
        chosen: tuple[str, dict[str, str]] | None = None
        header, setting = "", f"{path}.authentication"
        credentials = credential_headers(headers)
        if user or password:
            chosen = ("basic", {"username": str(user or ""), "password": str(password or "")})
        elif bearer:
            chosen = ("bearer", {"token": str(bearer)})
        elif plain:
            chosen = ("header", {"value": str(plain)})
        elif login is not None:
            chosen, setting = ("basic", {"username": login[0], "password": login[1]}), f"{path}.urls"
        elif credentials:
            header = credentials.pop(0)
            chosen, setting = ("header", {"value": headers.pop(header)}), f"{path}.headers.{header}"
        for left in credentials:
            text = (
                "may be a credential and stays in relayminer.yaml: a backend has one Secret. Keep that file out of Git"
            )
            self.note("changed", f"{path}.headers.{left}", text)
        if chosen is None:
            return None
        self.secrets[secret] = chosen[1]
        self.note("changed", setting, f"moved to Secret {secret}")
        return {"type": chosen[0], "secretRef": {"name": secret}, **({"header": header} if header else {})}

    def _health_check(self, path: str) -> Tree | None:
        take = self.relayer.take
        if not take(f"{path}.health_check.enabled", False):
            return None
        check: Tree = {}
        for theirs, ours, convert in (
            ("method", "method", as_text), ("endpoint", "path", as_text), ("request_body", "body", as_text),
            ("expected_body", "expectBody", as_text), ("interval_seconds", "intervalSeconds", seconds),
            ("timeout_seconds", "timeoutSeconds", seconds), ("unhealthy_threshold", "unhealthyThreshold", whole),
            ("healthy_threshold", "healthyThreshold", whole),
        ):  # fmt: skip
            if (value := take(f"{path}.health_check.{theirs}")) is not None:
                check[ours] = convert(value, f"{path}.health_check.{theirs}")
        expected = f"{path}.health_check.expected_status"
        if status := take(expected):
            codes = status if isinstance(status, list) else [status]
            check["expectStatus"] = [whole(code, expected) for code in codes]
        return check

    def relayer_spec(self) -> Tree:
        take, spec = self.relayer.take, Tree()
        if listen := take("listen_addr"):
            host, _, port = str(listen).rpartition(":")
            spec["port"] = whole(port, "listen_addr (HOST:PORT)")
            if host not in ("", "0.0.0.0", "[::]"):
                self.note("left", "listen_addr", f"pods listen on every address, not on {host}")
        if level := take("logging.level"):
            spec["logLevel"] = self._level("relayer", str(level))
        if level := self.miner.take("logging.level"):
            self.note("left", "miner: logging.level", f"{level}: set LOG_LEVEL in spec.miner.podTemplate")
        compression = {
            "enabled": take("response_compression.enabled"),
            "minBytes": take("response_compression.min_size_bytes"),
        }
        if any(value is not None for value in compression.values()):
            spec["responseCompression"] = {key: value for key, value in compression.items() if value is not None}
        meter = {"enabled": take("relay_meter.enabled"), "whenUnavailable": take("relay_meter.fail_behavior")}
        if any(value is not None for value in meter.values()):
            spec["metering"] = {key: value for key, value in meter.items() if value is not None}
        return spec

    def _level(self, name: str, level: str) -> str:
        own_level = _LEVELS.get(level.lower())
        if own_level is None:
            self.note("unknown", f"{name}: logging.level", f"{level!r} is no level, info is used")
        elif own_level not in (level.lower(), f"{level.lower()}ing"):
            self.note("changed", f"{name}: logging.level", f"{level} becomes {own_level}")
        return own_level or "info"

    def debug(self) -> bool:
        """Return True if profiles are served by the relayer or the miner."""
        return bool(self.relayer.take("pprof.enabled")) | bool(self.miner.take("pprof.enabled"))

    def _keys_taken(self) -> None:
        """Mark where keys are read from as used: the command writes them into Secrets."""
        for source in (self.relayer, self.miner):
            for name in ("keys_file", "keys_dir", "keyring"):
                source.take(f"keys.{name}")

    def convert(self) -> Migration:
        if not self.relayer.names("services"):
            raise ManifestError("services: the relayer's configuration has none: name at least one")
        spec: Tree = {"chain": self.chain(), "redis": self.redis(), "services": self.services()}
        if relayer := self.relayer_spec():
            spec["relayer"] = relayer
        if self.debug():
            spec["debug"] = True
        self._keys_taken()
        for source in (self.relayer, self.miner):
            for path in source.left():
                reason = reason_of(path)
                kind = "left" if reason else "unknown"
                self.note(kind, f"{source.name}: {path}", reason or "unknown setting, ignored")
        tree = {
            "apiVersion": "pocket.network/v1beta1", "kind": "RelayMiner",
            "metadata": {"name": self.name, "namespace": self.namespace}, "spec": spec,
        }  # fmt: skip
        return Migration(tree, self.notes, self.secrets)


def convert(relayer: Mapping[str, Any], miner: Mapping[str, Any], name: str, namespace: str) -> Migration:
    """Convert the configuration of another relay miner to a RelayMiner.

    It is that of a Go relayer and miner, or of pocketd's relayminer. Raises ManifestError if it cannot.
    """
    left: list[tuple[str, str]] = []
    if is_node_relayminer(relayer):
        relayer, left = as_relayer(relayer)
    migration = _Converter(SourceTree("relayer", relayer), SourceTree("miner", miner), name, namespace).convert()
    migration.notes += [Note("left", path, reason) for path, reason in left]
    return migration


def supplier(address: str, relay_miner: str, namespace: str, key: Tree) -> Tree:
    """Return a Supplier named after the end of its address."""
    return {
        "apiVersion": "pocket.network/v1beta1", "kind": "Supplier",
        "metadata": {"name": supplier_name(address), "namespace": namespace},
        "spec": {"relayMinerRef": {"name": relay_miner}, "operatorAddress": address, "key": key},
    }  # fmt: skip


def supplier_name(address: str) -> str:
    """Return a valid, short name that is the same at every run."""
    return f"supplier-{address[-8:]}"


def _object_name(text: str) -> str:
    return re.sub(r"[^a-z0-9-]+", "-", text.lower()).strip("-")[:60]
