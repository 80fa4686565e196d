"""The operator trusts an API server whose authority lacks key usage, under every version of CPython."""

import asyncio
import ssl

import kopf
import pytest

from pocket.kube.api_client import connect
from pocket_operator.controller.informers import registry
from pocket_operator.decide.object_cache import ObjectCache

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: here
clusters: [{name: here, cluster: {server: "https://127.0.0.1:9"}}]
users: [{name: here, user: {token: secret}}]
contexts: [{name: here, context: {cluster: here, user: here}}]
"""


@pytest.fixture(autouse=True)
def strict(monkeypatch):
    """Let contexts be as strict as those of CPython 3.13."""
    real = ssl.create_default_context

    def made(*arguments, **options):
        context = real(*arguments, **options)
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", made)


@pytest.fixture
def kubeconfig(tmp_path, monkeypatch):
    path = tmp_path / "config"
    path.write_text(KUBECONFIG)
    monkeypatch.setenv("KUBECONFIG", str(path))
    return path


def is_strict(context):
    return bool(context.verify_flags & ssl.VerifyFlags.VERIFY_X509_STRICT)


async def test_requests_trust_an_authority_without_key_usage(kubeconfig):
    async with connect(str(kubeconfig)) as api:
        assert not is_strict(api._client.rest_client.ssl_context)


async def test_watches_trust_an_authority_without_key_usage(kubeconfig):
    found = registry(ObjectCache(), lambda _: None, lambda _: None, asyncio.get_running_loop())
    (login,) = found._activities.get_all_handlers()
    info = login.fn(settings=kopf.OperatorSettings(), logger=None)
    assert (info.server, info.token) == ("https://127.0.0.1:9", "secret")
    assert not is_strict(info.as_ssl_context())
