"""A real control plane for the tests, and a stand-in for the one part it lacks: the kubelet."""

import asyncio
import base64
import contextlib
import fcntl
import functools
import hashlib
import json
import os
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from pocket.errors import DecodingError
from pocket.kube.api_client import KubeApi, KubeError, ObjectNotFound, ResourceKind, connect
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket_operator.resources.kinds import BY_KIND, PODS, SECRETS

_REMOUNT_SECONDS = 25.0
"""A real kubelet looks after a minute or so: too late to be taken for the annotation's doing."""
ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "hack/kubernetes"
NAMESPACES = ResourceKind("v1", "namespaces", "Namespace", namespaced=False)
CRDS = ResourceKind(
    "apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)
CHOICES = (
    "set KUBEBUILDER_ASSETS to the folder that `setup-envtest use -p path` prints, or TEST_CLUSTER=existing with "
    "KUBECONFIG, or build a control plane once with hack/kubernetes/prepare"
)


AUDIT_POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  userGroups: ["system:serviceaccounts"]
  verbs: [create, update, patch, delete, deletecollection]
- level: None
"""


@dataclass(frozen=True)
class Cluster:
    """A running control plane.

    The level is api, controllers or pods.
    """

    kubeconfig: Path
    kubectl_path: str
    level: str

    def writes_of(self, user: str) -> list[str]:
        """Return a user's answered write requests, as `verb resource/subresource name`."""
        found = []
        for line in (self.kubeconfig.parent / "audit.log").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row["user"]["username"] != user:
                continue
            place = row.get("objectRef") or {}
            resource = "/".join(part for part in (place.get("resource"), place.get("subresource")) if part)
            found.append(f"{row['verb']} {resource} {place.get('name', '')}")
        return found

    def kubectl(
        self, *arguments: str, stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [self.kubectl_path, "--kubeconfig", str(self.kubeconfig), *arguments],
            input=stdin, capture_output=True, text=True, timeout=150, check=False,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {done.stderr}")
        return done

    def store(self, key: str, value: bytes) -> None:
        """Put bytes into etcd under a key below /registry, where the API server reads JSON of every kind."""
        url = (self.kubeconfig.parent / "etcd-url").read_text(encoding="utf-8").strip()
        rows = {"key": f"/registry/{key}".encode(), "value": value}
        body = json.dumps({name: base64.b64encode(row).decode() for name, row in rows.items()}).encode()
        with urllib.request.urlopen(urllib.request.Request(f"{url}/v3/kv/put", body), timeout=10):
            pass

    def api(self) -> contextlib.AbstractAsyncContextManager[KubeApi]:
        """Return a client with the administrator's rights."""
        return connect(kubeconfig=str(self.kubeconfig))


def assets() -> tuple[Path, bool] | None:
    """Return the folder of the control plane's programs, and whether it has controllers."""
    chosen = os.environ.get("KUBEBUILDER_ASSETS")
    if not chosen:
        cached = subprocess.run([SCRIPTS / "prepare", "--cached"], capture_output=True, text=True, check=False)
        chosen = cached.stdout.strip()
    if not chosen:
        return None
    return Path(chosen), (Path(chosen) / "kube-controller-manager").exists()


@contextlib.contextmanager
def started(folder: Path, state: Path, *, controllers: bool) -> Iterator[Cluster]:
    """Etcd, API server and controllers on free ports, one for all processes that name this `state`.

    The first starts them, the last stops them; nothing is left behind.
    """
    environment = {**os.environ, "STATE": str(state), "BIN": str(folder), "CONTROLLERS": "1" if controllers else "0"}
    environment.pop("KUBECONFIG", None)
    policy = environment["AUDIT_POLICY"] = str(state.with_name("audit-policy.yaml"))
    users = state.with_name("users")
    try:
        with _counted(users, 1) as first:
            if first:
                Path(policy).write_text(AUDIT_POLICY)
                _script("start-control-plane.sh", environment, check=True)
        yield Cluster(state / "kubeconfig", str(folder / "kubectl"), "controllers" if controllers else "api")
    finally:
        with _counted(users, -1) as last:
            if last:
                _script("stop-all.sh", environment, check=False)


def _script(name: str, environment: dict[str, str], *, check: bool) -> None:
    subprocess.run([SCRIPTS / name], env=environment, check=check, capture_output=True, text=True, timeout=150)


@contextlib.contextmanager
def _counted(file: Path, change: int) -> Iterator[bool]:
    """Add to the number in a locked file and return whether it was, or is now, 0."""
    with file.open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.seek(0)
        before = int(held.read() or 0)
        held.truncate(0)
        held.write(str(before + change))
        held.flush()
        yield min(before, before + change) == 0


def fetch(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.loads(answer.read())


async def eventually(check: Any, seconds: float = 60.0, what: str = "", pause: float = 0.1) -> Any:
    """Poll an async check until it returns a true value.

    A timeout shows the last failure.
    """
    last: Any = None
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    last = await check()
                    if last:
                        return last
                except (ObjectNotFound, KeyError, AssertionError) as error:
                    last = error
                await asyncio.sleep(pause)
    except TimeoutError:
        raise AssertionError(f"not within {seconds:g} s: {what or check}; last seen: {last!r}") from None


def condition(observed: dict[str, Any], kind: str) -> dict[str, Any]:
    rows = (observed.get("status") or {}).get("conditions") or ()
    return next((row for row in rows if row["type"] == kind), {})


@functools.cache
def _public_key(text: str) -> bytes:
    return PrivateKey.from_hex(text).public_key


@dataclass
class FakeKubelet:
    """Makes pods of a namespace run as far as the API shows it, and answers /report as the workloads would.

    A pod sees its mounted key Secret when it starts, when its annotations change and once in a while, as with a real
    kubelet; what is no key is left out. `open`
    holds the number of open sessions by supplier, `leaving` whose relays relayers still have to record; `broken` makes
    every pod with this component (a canary's: "canary") wait with a reason; `recent` is what relayers say of their last
    relays.
    """

    api: KubeApi
    namespace: str
    open: dict[str, int] = field(default_factory=dict)
    leaving: set[str] = field(default_factory=set)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    redis_problem: str = ""
    chain: list[dict[str, str]] = field(default_factory=list)
    audit: dict[str, Any] | None = None
    broken: dict[str, tuple[str, str]] = field(default_factory=dict)
    recent: dict[str, dict[str, float]] = field(default_factory=dict)
    running: bool = True
    starting: asyncio.Lock = field(default_factory=asyncio.Lock)
    _addresses: dict[str, str] = field(default_factory=dict)
    _servers: dict[str, web.AppRunner] = field(default_factory=dict)
    _seen: dict[str, tuple[str, float]] = field(default_factory=dict)
    _mounted: dict[str, dict[str, str]] = field(default_factory=dict)

    async def run(self) -> None:
        while True:
            if self.running:
                with contextlib.suppress(KubeError):
                    await self.once()
            await asyncio.sleep(0.15)

    async def once(self) -> None:
        pods = await self.api.list(PODS, self.namespace)
        for pod in pods:
            metadata = pod["metadata"]
            component = (metadata.get("labels") or {}).get("app.kubernetes.io/component", "")
            if metadata.get("deletionTimestamp"):
                await self.api.call(
                    "DELETE", PODS.path(self.namespace, metadata["name"]), body={"gracePeriodSeconds": 0}
                )
                continue
            if component in ("relayer", "miner"):
                await self._mount(pod, component)
            await self._status(pod, component)
        for gone in set(self._servers) - {pod["metadata"]["name"] for pod in pods}:
            await self._servers.pop(gone).cleanup()
            self._seen.pop(gone, None)

    async def _mount(self, pod: dict[str, Any], component: str) -> None:
        name, labels = pod["metadata"]["name"], pod["metadata"]["labels"]
        annotations = json.dumps(pod["metadata"].get("annotations") or {}, sort_keys=True)
        seen, since = self._seen.get(name, ("", 0.0))
        if seen == annotations and time.monotonic() - since < _REMOUNT_SECONDS:
            return
        secret = await self.api.get_or_none(
            SECRETS, self.namespace, f"{labels['pocket.network/relayminer']}-{component}-keys"
        )
        if secret is None:
            return
        data = secret.get("data") or {}
        self._mounted[name] = {address: base64.b64decode(text).decode() for address, text in data.items()}
        self._seen[name] = (annotations, time.monotonic())
        if name not in self._servers:
            async with self.starting:
                await self._serve(name, component)

    def report(self, name: str, component: str) -> dict[str, Any]:
        keys, publics = {}, []
        for owner, text in self._mounted.get(name, {}).items():
            with contextlib.suppress(DecodingError):
                publics.append(_public_key(text))
                keys[owner] = text
        publics.sort()
        digest = hashlib.sha256(b"".join(publics)).hexdigest() if publics else ""
        body = {"component": component, "keys": digest, "addresses": sorted(keys), "height": 7, "problems": []}
        if component == "relayer":
            body |= {"complete": True, "leaving": sorted(self.leaving - set(keys))}
        body["recent"] = self.recent.get("canary" if "-canary-" in name else component, {})
        if component == "miner":
            body |= {
                "role": "active" if name.endswith("-0") else "standby", "redis": self.redis_problem,
                "chain": self.chain, "audit": self.audit if name.endswith("-0") else None,
                "owned": sorted(keys) if name.endswith("-0") else [],
                "looked": dict.fromkeys(keys, 0.0) if name.endswith("-0") else {},
                "suppliers": {
                    a: {
                        "open": self.open.get(a, 0), "staked": True, "lost_recently": 0, "last": {}, "sessions": {},
                        "stake": {"amount_upokt": 10, "services": ["eth"], "unstake_session_end_height": 0},
                        **self.rows.get(a, {}),
                    }
                    for a in keys
                },
            }  # fmt: skip
        return body

    async def _serve(self, name: str, component: str) -> None:
        async def answer(_: web.Request) -> web.Response:
            return web.json_response(self.report(name, component))

        app = web.Application()
        app.router.add_get("/report", answer)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
        await runner.setup()
        place = hashlib.sha256(f"{os.getpid()}/{self.namespace}/{name}".encode()).digest()
        self._addresses[name] = f"127.{place[0]}.{place[1]}.{1 + place[2] % 250}"
        await web.TCPSite(runner, self._addresses[name], 9090).start()
        self._servers[name] = runner

    async def _status(self, pod: dict[str, Any], component: str) -> None:
        name = pod["metadata"]["name"]
        status = pod.get("status") or {}
        is_canary = (pod["metadata"].get("labels") or {}).get("pocket.network/track") == "canary"
        broken = self.broken.get("canary" if is_canary else component)
        if broken is not None:
            reason, message = broken
            waiting = [{
                "name": component, "image": "i", "imageID": "", "ready": False, "restartCount": 0,
                "state": {"waiting": {"reason": reason, "message": message}},
            }]  # fmt: skip
            conditions = [{"type": "Ready", "status": "False"}]
            wanted = {"phase": "Pending", "conditions": conditions, "containerStatuses": waiting}
            if status.get("containerStatuses", [{}])[0].get("state") == waiting[0]["state"]:
                return
        else:
            if component in ("relayer", "miner") and name not in self._addresses:
                return
            ready = any(r["type"] == "Ready" and r["status"] == "True" for r in status.get("conditions") or ())
            if ready:
                return
            address = self._addresses.get(name, "127.9.9.9")
            wanted = {
                "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
                "conditions": [
                    {"type": t, "status": "True", "lastTransitionTime": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
                    for t in ("PodScheduled", "ContainersReady", "Ready")
                ],
                "containerStatuses": None,
            }  # fmt: skip
        with contextlib.suppress(ObjectNotFound):
            await self.api.merge(PODS, self.namespace, name, {"status": wanted}, subresource="status")

    async def close(self) -> None:
        for runner in self._servers.values():
            await runner.cleanup()


@contextlib.asynccontextmanager
async def kubelet(api: KubeApi, namespace: str) -> AsyncIterator[FakeKubelet]:
    fake = FakeKubelet(api, namespace)
    task = asyncio.create_task(fake.run())
    try:
        yield fake
    finally:
        async with fake.starting:  # cancelled in the middle of it a server would keep its socket
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await fake.close()


def kubeconfig_of(cluster: Cluster, namespace: str, account: str, target: Path) -> Path:
    """Return a kubeconfig with the rights of a ServiceAccount and no others."""
    token = cluster.kubectl("-n", namespace, "create", "token", account, "--duration=1h").stdout.strip()
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"] = [{"name": account, "user": {"token": token}}]
    config["contexts"][0]["context"]["user"] = account
    target.write_text(yaml.safe_dump(config))
    return target


async def apply(api: KubeApi, *objects: dict[str, Any], manager: str = "tests") -> list[dict[str, Any]]:
    return [await api.apply(BY_KIND[body["kind"]], body, manager) for body in objects]
