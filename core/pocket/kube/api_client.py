"""Call the Kubernetes API: paths in, JSON objects out.

Each call has a deadline and typed errors.
"""

import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from ssl import SSLError
from typing import Any, Final

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.config import load_incluster_config, load_kube_config
from kubernetes.aio.config.config_exception import ConfigException
from kubernetes.aio.config.kube_config import _cleanup_temp_files

from pocket.input_files import InputFileError, read_yaml

Object = dict[str, Any]
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
_PAGE = 500
_KUBECONFIG: Final = Path("~/.kube/config")
NO_ANSWER = frozenset({0, 401, 429, 502, 503, 504})
"""Statuses of no answer, or of a condition that passes and concerns every request."""
NAMESPACE_ENDS: Final = "NamespaceTerminating"
"""The cause of a refusal to create something in a namespace that is being deleted, which nothing takes back."""


class KubeError(Exception):
    """A request to the API server failed.

    `status` is 0 if there was no answer, `cause` the API server's word for its first cause, empty without one.
    """

    def __init__(self, message: str, status: int = 0, retry_after: float | None = None, cause: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.cause = cause

    @property
    def may_pass(self) -> bool:
        """Return True if the next attempt may succeed.

        The answer was a conflict (409), or an error of the server itself.
        """
        return self.status == HTTPStatus.CONFLICT or self.status >= HTTPStatus.INTERNAL_SERVER_ERROR


class ObjectNotFound(KubeError):
    """The API server states that the object does not exist (404)."""


class Conflict(KubeError):
    """Another client changed the object, or owns a field (409)."""


@dataclass(frozen=True, slots=True)
class ResourceKind:
    """A resource kind and the paths of its objects."""

    api_version: str
    plural: str
    name: str
    namespaced: bool = True

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Return the path of a collection or an object."""
        root = f"/api/{self.api_version}" if "/" not in self.api_version else f"/apis/{self.api_version}"
        parts = [root]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part]
        return "/".join(parts)


class KubeApi:
    """A thin client. Authentication and TLS are the official client's."""

    def __init__(self, client: ApiClient, timeout_seconds: float = 10.0) -> None:
        self._client = client
        self._timeout = timeout_seconds
        self.writes = 0
        self.observe: Callable[[str, int, float], None] = lambda _method, _status, _seconds: None
        """Called after each request with its method, the status of the answer (0 for none) and its seconds."""
        self.may_write: Callable[[], bool] = lambda: True
        """Asked before each write, which is not sent unless it returns True: a leader's may have ended meanwhile."""

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
        """Send one request and return its answer, a JSON object.

        Request bodies never appear in errors, since they may hold Secrets.

        Raises KubeError. A success of any other form is not the API server's, such as a proxy's page: no answer.
        """
        text, _ = await self._text(
            method, path, body=body, query=query, content_type=content_type, timeout_seconds=timeout_seconds
        )
        answer = _parsed(text)
        if answer is None:
            raise KubeError(f"{method} {path}: the response is not a JSON object, so not the API server's")
        return answer

    async def read_text(
        self, path: str, *, query: Mapping[str, str] | None = None, timeout_seconds: float | None = None
    ) -> str:
        """Return the text of a path, such as a proxied port of a pod. Raises KubeError."""
        text, _ = await self._text("GET", path, query=query, timeout_seconds=timeout_seconds)
        return text

    async def _text(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        timeout_seconds: float | None = None,
    ) -> tuple[str, int]:
        """Send one request and return text and status of the answer. Raises KubeError."""
        began, status = time.monotonic(), 0
        try:
            text, status = await self._send(
                method, path, body=body, query=query, content_type=content_type, timeout_seconds=timeout_seconds
            )
        except KubeError as error:
            status = error.status
            raise
        finally:
            self.observe(method, status, time.monotonic() - began)
        return text, status

    async def _send(
        self,
        method: str,
        path: str,
        *,
        body: Any,
        query: Mapping[str, str] | None,
        content_type: str,
        timeout_seconds: float | None,
    ) -> tuple[str, int]:
        seconds = self._timeout if timeout_seconds is None else timeout_seconds
        if method != "GET":
            if not self.may_write():
                raise KubeError(f"{method} {path}: not sent, since this process may no longer write")
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
            raise _error_from_status(error.status or 0, str(error.body or error.reason), method, path) from None
        except TimeoutError:
            raise KubeError(f"{method} {path}: no answer within {seconds:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise KubeError(f"{method} {path}: {type(error).__name__}: {error}") from error
        text = data.decode("utf-8", "replace") if isinstance(data, bytes) else str(data)
        if response.status >= 400:
            raise _error_from_status(response.status, text, method, path, response.response.headers.get("Retry-After"))
        return text, response.status

    async def get(self, kind: ResourceKind, namespace: str, name: str) -> Object:
        """Return an object. Raises ObjectNotFound."""
        result: Object = _resource(await self.call("GET", kind.path(namespace, name)))
        return result

    async def get_or_none(self, kind: ResourceKind, namespace: str, name: str) -> Object | None:
        """Return an object, or None if it does not exist."""
        try:
            return await self.get(kind, namespace, name)
        except ObjectNotFound:
            return None

    async def list(
        self, kind: ResourceKind, namespace: str = "", selector: str = "", *, fields: str = ""
    ) -> list[Object]:
        """Return all objects, page by page.

        The API omits kind and apiVersion from items, so they are filled in.
        """
        objects: list[Object] = []
        query = {"limit": str(_PAGE)}
        if selector:
            query["labelSelector"] = selector
        if fields:
            query["fieldSelector"] = fields
        while True:
            page = await self.call("GET", kind.path(namespace), query=query)
            if not isinstance(page.get("items"), list):
                raise KubeError(f"GET {kind.path(namespace)}: the response is not a list of objects")
            objects += [{"apiVersion": kind.api_version, "kind": kind.name, **item} for item in page["items"]]
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return objects
            query["continue"] = token

    async def create(self, kind: ResourceKind, namespace: str, body: Object) -> Object:
        """Create an object. Raises Conflict if it exists already."""
        created: Object = _resource(await self.call("POST", kind.path(namespace), body=body))
        return created

    async def replace(self, kind: ResourceKind, namespace: str, body: Object) -> Object:
        """Replace the version that `body` names. Raises Conflict."""
        path = kind.path(namespace, body["metadata"]["name"])
        replaced: Object = _resource(await self.call("PUT", path, body=body))
        return replaced

    async def apply(self, kind: ResourceKind, body: Object, manager: str, *, force: bool = True) -> Object:
        """Apply an object server-side."""
        metadata = body["metadata"]
        query = {"fieldManager": manager, "force": "true" if force else "false"}
        path = kind.path(metadata.get("namespace", ""), metadata["name"])
        applied: Object = _resource(await self.call("PATCH", path, body=body, query=query, content_type=APPLY))
        return applied

    async def merge(
        self, kind: ResourceKind, namespace: str, name: str, patch: Object, *, subresource: str = "", manager: str = ""
    ) -> Object:
        """Apply a JSON merge patch."""
        query = {"fieldManager": manager} if manager else {}
        path = kind.path(namespace, name, subresource)
        merged: Object = _resource(await self.call("PATCH", path, body=patch, query=query, content_type=MERGE))
        return merged

    async def patch(
        self, kind: ResourceKind, namespace: str, name: str, operations: Sequence[Object], *, manager: str
    ) -> Object:
        """Apply a JSON patch."""
        path, query = kind.path(namespace, name), {"fieldManager": manager}
        patched: Object = _resource(
            await self.call("PATCH", path, body=operations, query=query, content_type=JSON_PATCH)
        )
        return patched

    async def delete(self, kind: ResourceKind, namespace: str, name: str, *, uid: str = "") -> None:
        """Delete an object in the background. A missing object is no error."""
        body: Object = {"propagationPolicy": "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        try:
            await self.call("DELETE", kind.path(namespace, name), body=body)
        except ObjectNotFound:
            return


def _resource(answer: Object) -> Object:
    """Check that an answer is an object of the API.

    Raises KubeError for anything else, which is no answer.
    """
    if not isinstance(answer.get("metadata"), dict):
        raise KubeError("the response is not an object of the API")
    return answer


def _parsed(text: str) -> Object | None:
    """Return the JSON object of a text, None if it is anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _error_from_status(status: int, text: str, method: str, path: str, retry_after: str | None = None) -> KubeError:
    """Return the error of a status.

    The API server states that an object does not exist. A bare 404 is that of an unknown path, or of a proxy in front
    of it, and no evidence.
    """
    answer = _parsed(text) or {}
    message = answer.get("message", text[:200])
    kind = {404: ObjectNotFound, 409: Conflict}.get(status, KubeError)
    if status == HTTPStatus.NOT_FOUND and answer.get("reason") != "NotFound":
        kind = KubeError
    seconds = float(retry_after) if retry_after and retry_after.isdecimal() else None
    causes = (answer.get("details") or {}).get("causes") or [{}]
    return kind(f"{method} {path}: {status} {message}", status, seconds, str(causes[0].get("reason", "")))


def kubeconfig_files(kubeconfig: str | None) -> list[Path]:
    """Return the files of `kubeconfig`, else of KUBECONFIG, else the default one."""
    paths = kubeconfig or os.environ.get("KUBECONFIG") or str(_KUBECONFIG)
    return [Path(path).expanduser() for path in paths.split(os.pathsep) if path]


def _check_kubeconfig(files: Sequence[Path]) -> None:
    """Check that there is a kubeconfig, and that its files are mappings.

    The generated client assumes that they are. Raises KubeError and InputFileError.
    """
    present = [file for file in files if file.exists()]
    if not present:
        names = ", ".join(map(str, files))
        raise KubeError(f"no cluster configured: {names} does not exist. Set KUBECONFIG, or name another file")
    for file in present:
        if not isinstance(next(iter(read_yaml(file)), None), dict):
            raise InputFileError(f"{file}: not a kubeconfig: name another with --kubeconfig or KUBECONFIG")


@asynccontextmanager
async def connect(
    timeout_seconds: float = 10.0, kubeconfig: str | None = None, context: str | None = None
) -> AsyncIterator[KubeApi]:
    """Connect to the cluster of `kubeconfig` or KUBECONFIG, else to the pod's own.

    `context` is an entry of the kubeconfig, None for its current one.

    Raises KubeError.
    """
    configuration = Configuration()
    # The callers decide when to try again. False would count as the number 0, and repeat a failed read without an end.
    configuration.retries = None
    # CPython 3.13 and later refuse authorities without key usage, which many clusters have. Other clients take them.
    configuration.disable_strict_ssl_verification = True
    chosen = kubeconfig or os.environ.get("KUBECONFIG") or None
    try:
        if chosen is None and context is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]  # generated client
        else:
            _check_kubeconfig(kubeconfig_files(chosen))
            await load_kube_config(config_file=chosen, context=context, client_configuration=configuration)  # type: ignore[no-untyped-call]  # generated client
        client = ApiClient(configuration=configuration)
    except InputFileError as error:
        raise KubeError(f"kubeconfig {error}") from None
    except (TypeError, AttributeError, LookupError, ValueError, RecursionError, SSLError) as error:
        raise KubeError(
            f"kubeconfig {chosen or _KUBECONFIG}: not usable ({type(error).__name__}): check it with "
            "`kubectl config view`, or name another with --kubeconfig or KUBECONFIG"
        ) from None
    except (ConfigException, OSError) as error:
        raise KubeError(
            f"no cluster configured: {error}. Set KUBECONFIG, or run in a pod with a ServiceAccount token."
        ) from error
    finally:
        # The client has read the certificates and the key by now. A killed process would leave their files behind.
        _cleanup_temp_files()  # type: ignore[no-untyped-call]  # generated client
    try:
        yield KubeApi(client, timeout_seconds)
    finally:
        await client.close()  # type: ignore[no-untyped-call]  # generated client
