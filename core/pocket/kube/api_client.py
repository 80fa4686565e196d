"""The API server as JSON: paths in, objects out, every call with a deadline, every refusal typed."""

import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.config import load_incluster_config, load_kube_config
from kubernetes.aio.config.config_exception import ConfigException

Object = dict[str, Any]
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
_PAGE = 500


class KubeError(Exception):
    """The API server could not be asked, or refused; `status` is 0 when there was no answer."""

    def __init__(self, message: str, status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class ObjectNotFound(KubeError):
    """404: the object or its kind is not there."""


class Conflict(KubeError):
    """409: somebody else changed it, or owns a field."""


@dataclass(frozen=True, slots=True)
class ResourceKind:
    """Where objects of a kind are."""

    api_version: str
    plural: str
    name: str
    namespaced: bool = True

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The path of a collection or an object."""
        root = f"/api/{self.api_version}" if "/" not in self.api_version else f"/apis/{self.api_version}"
        parts = [root]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part]
        return "/".join(parts)


class KubeApi:
    """A thin client: authentication and TLS are the official client's."""

    def __init__(self, client: ApiClient, timeout_seconds: float = 10.0) -> None:
        self._client = client
        self._timeout = timeout_seconds
        self.writes = 0

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        timeout_seconds: float | None = None,
    ) -> Any:
        """One request; raises KubeError. Request bodies never appear in errors: they may hold Secrets."""
        seconds = self._timeout if timeout_seconds is None else timeout_seconds
        if method != "GET":
            self.writes += 1
        try:
            request = await self._client.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params={"Accept": "application/json", "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
            )
            response = await self._client.call_api(*request, _request_timeout=aiohttp.ClientTimeout(total=seconds))
            data = await response.read()  # type: ignore[no-untyped-call]  # generated client
        except ApiException as error:
            raise _typed(error.status or 0, str(error.body or error.reason), method, path) from None
        except TimeoutError:
            raise KubeError(f"{method} {path}: no answer within {seconds:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise KubeError(f"{method} {path}: {type(error).__name__}: {error}") from error
        text = data.decode("utf-8", "replace") if isinstance(data, bytes) else str(data)
        if response.status >= 400:
            raise _typed(response.status, text, method, path, response.response.headers.get("Retry-After"))
        try:
            return json.loads(text) if text else None
        except ValueError as error:
            raise KubeError(f"{method} {path}: the answer is not JSON", response.status) from error

    async def get(self, kind: ResourceKind, namespace: str, name: str) -> Object:
        """An object; raises Missing."""
        found: Object = await self.call("GET", kind.path(namespace, name))
        return found

    async def find(self, kind: ResourceKind, namespace: str, name: str) -> Object | None:
        """An object, or None."""
        try:
            return await self.get(kind, namespace, name)
        except ObjectNotFound:
            return None

    async def list(
        self, kind: ResourceKind, namespace: str = "", selector: str = "", *, fields: str = ""
    ) -> list[Object]:
        """All objects, page by page; items lack kind and apiVersion in the API, so they are filled in."""
        found: list[Object] = []
        query = {"limit": str(_PAGE)}
        if selector:
            query["labelSelector"] = selector
        if fields:
            query["fieldSelector"] = fields
        while True:
            page = await self.call("GET", kind.path(namespace), query=query)
            found += [{"apiVersion": kind.api_version, "kind": kind.name, **item} for item in page["items"]]
            token = page.get("metadata", {}).get("continue")
            if not token:
                return found
            query["continue"] = token

    async def create(self, kind: ResourceKind, namespace: str, body: Object) -> Object:
        """Creates; raises Conflict when it is there already."""
        created: Object = await self.call("POST", kind.path(namespace), body=body)
        return created

    async def replace(self, kind: ResourceKind, namespace: str, body: Object) -> Object:
        """Replaces the version that `body` names; raises Conflict."""
        path = kind.path(namespace, body["metadata"]["name"])
        replaced: Object = await self.call("PUT", path, body=body)
        return replaced

    async def apply(self, kind: ResourceKind, body: Object, manager: str, *, force: bool = True) -> Object:
        """Server-side apply."""
        metadata = body["metadata"]
        query = {"fieldManager": manager, "force": "true" if force else "false"}
        path = kind.path(metadata.get("namespace", ""), metadata["name"])
        applied: Object = await self.call("PATCH", path, body=body, query=query, content_type=APPLY)
        return applied

    async def merge(
        self, kind: ResourceKind, namespace: str, name: str, patch: Object, *, subresource: str = "", manager: str = ""
    ) -> Object:
        """JSON merge patch."""
        query = {"fieldManager": manager} if manager else {}
        path = kind.path(namespace, name, subresource)
        merged: Object = await self.call("PATCH", path, body=patch, query=query, content_type=MERGE)
        return merged

    async def patch(
        self, kind: ResourceKind, namespace: str, name: str, operations: Sequence[Object], *, manager: str
    ) -> Object:
        """JSON patch."""
        path, query = kind.path(namespace, name), {"fieldManager": manager}
        patched: Object = await self.call("PATCH", path, body=operations, query=query, content_type=JSON_PATCH)
        return patched

    async def delete(self, kind: ResourceKind, namespace: str, name: str, *, uid: str = "") -> None:
        """Deletes in the background; one that is gone is fine."""
        body: Object = {"propagationPolicy": "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        try:
            await self.call("DELETE", kind.path(namespace, name), body=body)
        except ObjectNotFound:
            return


def _typed(status: int, text: str, method: str, path: str, retry_after: str | None = None) -> KubeError:
    try:
        message = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        message = text[:200]
    kind = {404: ObjectNotFound, 409: Conflict}.get(status, KubeError)
    seconds = float(retry_after) if retry_after and retry_after.isdecimal() else None
    return kind(f"{method} {path}: {status} {message}", status, seconds)


@asynccontextmanager
async def connect(timeout_seconds: float = 10.0, kubeconfig: str | None = None) -> AsyncIterator[KubeApi]:
    """The cluster of `kubeconfig` or KUBECONFIG, else the one this pod runs in; raises KubeError."""
    configuration = Configuration()
    configuration.retries = False  # the callers decide when to try again
    chosen = kubeconfig or os.environ.get("KUBECONFIG")
    try:
        if chosen is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]  # generated client
        else:
            await load_kube_config(config_file=chosen, client_configuration=configuration)  # type: ignore[no-untyped-call]  # generated client
    except (ConfigException, OSError) as error:
        raise KubeError(
            f"no cluster to talk to: {error}. Set KUBECONFIG, or run in a pod with a ServiceAccount token."
        ) from error
    client = ApiClient(configuration=configuration)
    try:
        yield KubeApi(client, timeout_seconds)
    finally:
        await client.close()  # type: ignore[no-untyped-call]  # generated client
