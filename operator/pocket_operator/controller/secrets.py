"""Read Secrets by name, so that the operator needs no right to list or watch them."""

import base64
import binascii
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.keys.sealed_box import Controller, SealError, key_id
from pocket.kube.api_client import NO_ANSWER, Conflict, KubeApi, KubeError
from pocket.runtime.concurrency import map_bounded
from pocket_operator.controller import operator_metrics
from pocket_operator.controller.published import publish
from pocket_operator.decide.object_cache import ReconcileKey
from pocket_operator.decide.snapshot import SecretView
from pocket_operator.resources import names
from pocket_operator.resources.kinds import CONFIG_MAPS, SECRETS

_LOG: FilteringBoundLogger = structlog.get_logger()
Object = dict[str, Any]
_CONCURRENCY = 32
_PER_SECOND = 5.0
"""Reads of Secrets per second at rest. With 500 Secrets a change is therefore noticed within 100 s."""
_JITTER = 0.2
SEALING_SECRET = "pocket-operator-sealing"  # noqa: S105 - a name
SEALING_PUBLIC = "pocket-operator-sealing-public"
ROTATE = "pocket.network/rotate"


class SecretReader:
    """Reads the Secrets of a RelayMiner and its Suppliers.

    Each is read again once it is old. The total rate is bounded: the more Secrets, existing or not, the older each may
    become. Ages are jittered, so that Secrets that were read together are not read again together. Unreferenced Secrets
    are dropped.
    """

    def __init__(
        self,
        api: KubeApi,
        clock: Callable[[], float],
        youngest_seconds: float = 3.0,
        rng: random.Random | None = None,
    ) -> None:
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._api = api
        self._clock = clock
        self._youngest = youngest_seconds
        self._known: dict[ReconcileKey, dict[str, tuple[float, SecretView | None]]] = {}
        self._failed: dict[ReconcileKey, frozenset[str]] = {}

    async def read(self, key: ReconcileKey, wanted: Iterable[str]) -> Mapping[str, SecretView | None]:
        """Return Secrets by name, None for those that do not exist.

        One that the API server refuses to return (it cannot decrypt it, or a role lacks it) concerns those that need it
        only, and remains as it was last read. Raises KubeError without an answer, and for the first error that may pass
        of one that was never read.
        """
        before = self._known.get(key, {})
        known = {name: before.get(name, (float("-inf"), None)) for name in sorted(set(wanted))}
        self._known[key] = known
        views = [view for rows in self._known.values() for _, view in rows.values()]
        missing = sum(view is None or bool(view.problem) for view in views)
        if not known:
            del self._known[key]
        failed, new = set[str](), list[KubeError]()

        def next_read_at(view: SecretView | None) -> float:
            good = view is not None and not view.problem
            number, youngest = (len(views), self._youngest) if good else (missing, 0.0)
            spread = self._rng.uniform(1 - _JITTER, 1 + _JITTER)
            return self._clock() + max(youngest, spread * number / _PER_SECOND)

        async def read_one(name: str) -> None:
            try:
                secret = await self._api.get_or_none(SECRETS, key.namespace, name)
                view = None if secret is None else SecretView.of(secret)
            except KubeError as error:
                if error.status in NO_ANSWER:
                    raise
                _LOG.warning("cannot read a Secret", secret=name, error=error)
                failed.add(name)
                if known[name][1] is None and error.may_pass and name not in self._failed.get(key, ()):
                    new.append(error)
                    return
                view = known[name][1] or SecretView({}, problem=f"Secret {name} cannot be read: {error}")
            known[name] = (next_read_at(view), view)

        due = [name for name, (at, _) in known.items() if self._clock() >= at]
        await map_bounded(read_one, due, _CONCURRENCY, stop_on=KubeError)
        self._failed.pop(key, None)
        if failed:
            self._failed[key] = frozenset(failed)
        if new:
            raise new[0]
        return {name: view for name, (_, view) in known.items()}


class SealingKeys:
    """The operator's sealing keys.

    They are a Secret in its namespace, with the public key in a ConfigMap. The annotation `pocket.network/rotate:
    requested` on the Secret adds a key. Older keys still open what they sealed.
    """

    def __init__(self, api: KubeApi, namespace: str) -> None:
        self._api = api
        self._namespace = namespace
        self.controller = Controller(())

    async def refresh(self) -> None:
        """Read the keys, create the first one, rotate on request.

        A write that the API server refuses is logged: what the operator manages must not wait for it. Raises KubeError
        if the keys cannot be read.
        """
        secret = await self._api.get_or_none(SECRETS, self._namespace, SEALING_SECRET)
        if secret is None:
            with _logging_refusal(SEALING_SECRET):
                secret = await self._create()  # with the loaded keys, which may be the only copies
        if secret is None:
            return
        annotations = secret["metadata"].get("annotations") or {}
        if annotations.get(ROTATE) == "requested":
            with _logging_refusal(SEALING_SECRET):
                secret = await self._rotate(secret)
        keys = _decoded(secret)
        operator_metrics.SEALING_KEYS.set(len(keys))
        if not keys:
            _LOG.error(
                "Secret without a valid sealing key, keeping the loaded ones: restore its backup, or delete it, and it "
                "is written again with the loaded keys, or with a new one if none is loaded",
                secret=SEALING_SECRET, loaded=len(self.controller.keys),
            )  # fmt: skip
            return
        if keys != self.controller.keys:
            self.controller = Controller.of(keys)
            _LOG.info("sealing keys loaded", keys=len(keys), newest=key_id(self.controller.newest))
        await self._publish()

    async def _create(self) -> Object:
        body: Object = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "Opaque",
            "metadata": {"name": SEALING_SECRET, "labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY}},
            "data": _entries(self.controller.keys or (Controller.generate(),)),
        }
        if self.controller.keys:
            _LOG.warning("Secret of the sealing keys is gone, writing it again", keys=len(self.controller.keys))
        try:
            return await self._api.create(SECRETS, self._namespace, body)
        except Conflict:
            return await self._api.get(SECRETS, self._namespace, SEALING_SECRET)

    async def _rotate(self, secret: Object) -> Object:
        metadata = dict(secret["metadata"])
        metadata["annotations"] = {k: v for k, v in metadata["annotations"].items() if k != ROTATE}
        data = {**(secret.get("data") or {}), **_entries((Controller.generate(),))}
        _LOG.info("adding a sealing key, as requested by annotation")
        return await self._api.replace(SECRETS, self._namespace, {**secret, "metadata": metadata, "data": data})

    async def _publish(self) -> None:
        public = base64.b64encode(self.controller.newest).decode()
        wanted = {"public-key": public, "key-id": key_id(self.controller.newest)}
        namespaced_name = (self._namespace, SEALING_PUBLIC)
        with _logging_refusal(SEALING_PUBLIC):
            await publish(self._api, CONFIG_MAPS, namespaced_name, {"data": wanted}, names.FIELD_MANAGER)


@contextmanager
def _logging_refusal(name: str) -> Iterator[None]:
    """Log that the API server refused to write an object.

    It is tried again at the next refresh.
    """
    try:
        yield
    except KubeError as error:
        if error.status in NO_ANSWER:
            raise
        _LOG.error("write refused, retrying", object=name, error=error)


def _entries(keys: Iterable[bytes]) -> dict[str, str]:
    """Return keys under names that sort by time and in their order."""
    name = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    return {f"{name}-{number:04}": base64.b64encode(key).decode() for number, key in enumerate(keys)}


def _decoded(secret: Object) -> tuple[bytes, ...]:
    data = secret.get("data") or {}
    keys = []
    for name in sorted(data):
        try:
            raw = base64.b64decode(data[name], validate=True)
            Controller.of([raw])
        except (binascii.Error, SealError, ValueError):
            _LOG.error("entry of a Secret ignored, it is not a sealing key", secret=SEALING_SECRET, entry=name)
            continue
        keys.append(raw)
    return tuple(keys)
