"""Read admin ports with deadlines and size limits.

They are reached directly or through the Kubernetes API server.
"""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from typing import Any, Final, Protocol

import aiohttp

from pocket.api.miner_status import SESSION_PATH
from pocket.errors import PocketError, system_reason
from pocket.kube.api_client import KubeApi, KubeError
from pocket_console.snapshot import ProcessOrigin

_LARGEST_BYTES: Final = 32 * 1024 * 1024
_CALL_SECONDS: Final = 5.0
_CHUNK: Final = 64 * 1024


class FetchError(PocketError):
    """A process gave no usable answer. `status` is that of HTTP, 0 without an answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Fetcher(Protocol):
    """Reads the admin port of a process."""

    async def text(self, origin: ProcessOrigin, path: str, query: Mapping[str, str] | None = None) -> str:
        """Return the body at a path. Raises FetchError."""


async def fetch_json(
    fetcher: Fetcher, origin: ProcessOrigin, path: str, query: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the JSON object at a path.

    Raises FetchError.
    """
    text = await fetcher.text(origin, path, query)
    try:
        answer = await asyncio.to_thread(json.loads, text) if len(text) > _CHUNK else json.loads(text)
    except (ValueError, RecursionError):
        raise FetchError(f"{path} is not JSON") from None
    if not isinstance(answer, dict):
        raise FetchError(f"{path} is not a JSON object")
    return answer


class HttpFetcher:
    """Reads admin ports directly."""

    def __init__(self, http: aiohttp.ClientSession, seconds: float = _CALL_SECONDS) -> None:
        self._http = http
        self._timeout = aiohttp.ClientTimeout(total=seconds)
        self._seconds = seconds

    async def text(self, origin: ProcessOrigin, path: str, query: Mapping[str, str] | None = None) -> str:
        """Return the body at a path.

        Raises FetchError.
        """
        try:
            async with self._http.get(
                origin.url + path, params=query, timeout=self._timeout, allow_redirects=False
            ) as answer:
                body = bytearray()
                async for chunk in answer.content.iter_chunked(_CHUNK):
                    body += chunk
                    if len(body) > _LARGEST_BYTES:
                        raise FetchError(f"{path} is larger than {_LARGEST_BYTES >> 20} MiB")
        except TimeoutError:
            raise FetchError(f"no answer within {self._seconds:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise FetchError(_reason(error)) from None
        text = body.decode("utf-8", "replace")
        if answer.status != 200:
            raise FetchError(_refusal(answer.status, path, text), answer.status)
        return text


class KubernetesFetcher:
    """Reads the admin ports of pods through the API server.

    It needs the right to `get` `pods/proxy`.
    """

    def __init__(self, api: KubeApi, seconds: float = _CALL_SECONDS) -> None:
        self._api = api
        self._seconds = seconds

    async def text(self, origin: ProcessOrigin, path: str, query: Mapping[str, str] | None = None) -> str:
        """Return the body at a path.

        Raises FetchError.
        """
        try:
            return await self._api.read_text(origin.url + path, query=query, timeout_seconds=self._seconds)
        except KubeError as error:
            raise FetchError(str(error)[:300], error.status) from None


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection: {system_reason(error)}"
    return str(error)[:200] or type(error).__name__


def _refusal(status: int, path: str, text: str) -> str:
    if status == 404 and path.startswith("/status/") and path != SESSION_PATH:
        return "it is of an older version without the status API: update it"
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        text = str(json.loads(text)["error"])
    return f"HTTP {status} at {path}: {text[:200]}"
