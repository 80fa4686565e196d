"""Watch with kopf.

Each event updates the object cache and queues the affected keys.
"""

import asyncio
import logging
import os
import ssl
from collections.abc import Callable, Collection
from typing import Any, cast

import kopf

from pocket.api.base import GROUP, VERSION
from pocket.runtime.own_authorities import lenient
from pocket_operator.controller.watch_thread import handed_over
from pocket_operator.decide.object_cache import ObjectCache, ReconcileKey
from pocket_operator.resources import names
from pocket_operator.resources.kinds import PODS, RELAY_MINERS, SUPPLIERS, WATCHED_CHILDREN

Object = dict[str, Any]
CHILD_SELECTOR = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"


class ClusterConnection(kopf.ConnectionInfo):
    """A connection to an API server whose authority may lack key usage.

    Those of many clusters do.
    """

    def as_ssl_context(self) -> ssl.SSLContext:
        """Return the context of the connection."""
        return lenient(super().as_ssl_context())


def settings() -> kopf.OperatorSettings:
    """Return kopf's settings, each with its reason."""
    chosen = kopf.OperatorSettings()
    chosen.peering.standalone = True  # leadership is our own Lease
    chosen.posting.enabled = False  # Events are ours: one per reason, counted up
    chosen.scanning.disabled = True  # so that no right to list namespaces and CRDs is needed
    chosen.watching.server_timeout = 300
    chosen.watching.client_timeout = 310
    chosen.watching.connect_timeout = 10
    chosen.watching.reconnect_backoff = 1.0
    chosen.watching.inactivity_timeout = 70  # bookmarks arrive every minute: a silent watch is dead
    chosen.watching.chunk_size = 500  # so that 1000 Suppliers are not in memory twice
    chosen.networking.request_timeout = 30
    chosen.networking.connect_timeout = 5
    chosen.queueing.worker_limit = 100
    chosen.execution.max_workers = 1  # there is no synchronous handler
    # There are no handlers that use what follows. It only keeps a future one from writing kopf's own names.
    chosen.persistence.finalizer = f"{GROUP}/kopf"
    chosen.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=f"kopf.{GROUP}", v1=False)
    chosen.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=f"kopf.{GROUP}", key="last", v1=False)
    for kind in (*WATCHED_CHILDREN, PODS):
        group, _, version = kind.api_version.rpartition("/")
        chosen.watching.label_selectors[group, version, kind.plural] = CHILD_SELECTOR
    return chosen


def registry(
    cache: ObjectCache,
    changed: Callable[[ReconcileKey], None],
    heartbeat: Callable[[Object], None],
    loop: asyncio.AbstractEventLoop,
) -> kopf.OperatorRegistry:
    """Return raw event handlers.

    They keep no state in the objects and add no finalizers. Events are handled in `loop`, in whichever loop the watches
    run.
    """
    operator_registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=operator_registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        info = None if os.environ.get("KUBECONFIG") else kopf.login_with_service_account(**kwargs)
        info = info or kopf.login_with_kubeconfig(**kwargs)
        return None if info is None else ClusterConnection(**vars(info))

    def watch(kind: str, group: str, version: str, plural: str) -> None:
        def apply(event: Any) -> None:
            observed: Object = {**event["object"], "kind": kind}
            if event.get("type") == "DELETED":
                keys = cache.drop(kind, observed)
            else:
                heartbeat(observed)
                keys = cache.put(kind, observed)
            for key in keys:
                changed(key)

        apply_there = handed_over(apply, loop)

        @kopf.on.event(group, version, plural, registry=operator_registry, id=f"see-{plural}")
        async def inform(event: Any, **_: Any) -> None:
            await apply_there(event)

    watch(RELAY_MINERS.name, GROUP, VERSION, RELAY_MINERS.plural)
    watch(SUPPLIERS.name, GROUP, VERSION, SUPPLIERS.plural)
    for kind in (*WATCHED_CHILDREN, PODS):
        group, _, version = kind.api_version.rpartition("/")
        watch(kind.name, group, version, kind.plural)
    return operator_registry


def _is_about_watches(record: logging.LogRecord) -> bool:
    """Return False for the warning that signals are ignored.

    It is about threads other than the main one, which handles them.
    """
    return "OS signals" not in record.getMessage()


async def run_watches(
    operator_registry: kopf.OperatorRegistry, namespaces: Collection[str], stop: Any, ready: Any = None
) -> None:
    """Run the watches until stopped. Raises the error that ends a watcher."""
    logging.getLogger("kopf._core.reactor.running").addFilter(_is_about_watches)
    await kopf.operator(
        registry=operator_registry,
        settings=settings(),
        standalone=True,
        clusterwide=not namespaces,
        namespaces=list(namespaces),
        stop_flag=stop,
        ready_flag=ready,
        identity=cast(Any, names.MANAGED_BY),  # the default is a user name, which a pod's user does not have
    )
