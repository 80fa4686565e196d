"""Describe what a miner runs on: its port, trie processes and the API server."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from pocket.platform import Platform
from pocket_miner.process.admin_server import serve_admin
from pocket_miner.storage.trie_pool import TriePool, Tries

if TYPE_CHECKING:
    from pocket.kube.api_client import KubeApi


def connect_kube() -> "AbstractAsyncContextManager[KubeApi]":
    """Connect to the cluster of this pod.

    It loads the Kubernetes client, which takes 11 MiB.
    """
    from pocket.kube.api_client import connect  # noqa: PLC0415 - a miner without Kubernetes does not need it

    return connect()


@dataclass(frozen=True, slots=True, kw_only=True)
class MinerPlatform(Platform):
    """The replaceable environment of a miner. The defaults are the real ones."""

    tries: Callable[[], Tries] = TriePool
    serve_admin: Callable[..., Awaitable[web.AppRunner]] = serve_admin
    connect_kube: "Callable[[], AbstractAsyncContextManager[KubeApi]]" = connect_kube
