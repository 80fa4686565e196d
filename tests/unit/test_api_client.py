"""The client of the Kubernetes API reports each request, which the operator shows by method and result."""

import base64
import contextlib
import tempfile
from pathlib import Path

import pytest
import yaml
from aiohttp import web
from prometheus_client import REGISTRY

from pocket.coordination.leader_lease import LeaseElector
from pocket.kube.api_client import NAMESPACE_ENDS, NO_ANSWER, KubeError, ObjectNotFound, connect
from pocket_operator.controller import operator_metrics
from pocket_operator.resources.kinds import SECRETS

TLS = Path(__file__).parents[1] / "support/tls"


async def answering(status, text='{"message": "m"}'):
    async def answer(_):
        return web.Response(text=text, status=status)

    app = web.Application()
    app.add_routes([web.route("*", "/{path:.*}", answer)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner


def kubeconfig(folder, port):
    named = [{"name": "n", "cluster": {"server": f"http://127.0.0.1:{port}"}}]
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "n", "clusters": named,
        "contexts": [{"name": "n", "context": {"cluster": "n", "user": "n"}}], "users": [{"name": "n", "user": {}}],
    }  # fmt: skip
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return str(path)


def counted(method, result):
    labels = {"method": method, "result": result}
    return REGISTRY.get_sample_value("pocket_operator_api_seconds_count", labels)


async def test_requests_are_counted_by_method_and_result_from_zero_on(tmp_path):
    operator_metrics.start_at_zero()
    for status, method, result in ((200, "GET", "2xx"), (404, "PATCH", "4xx"), (503, "POST", "5xx")):
        before = counted(method, result)
        assert before is not None, "the series exists before its first request"
        runner = await answering(status)
        async with connect(kubeconfig=kubeconfig(tmp_path, runner.addresses[0][1])) as api:
            api.observe = operator_metrics.observe_request
            with contextlib.suppress(KubeError):
                await api.call(method, "/api")
        await runner.cleanup()
        assert counted(method, result) - before == 1
    before = counted("GET", "none")
    async with connect(kubeconfig=kubeconfig(tmp_path, runner.addresses[0][1] if runner.addresses else 1)) as api:
        api.observe = operator_metrics.observe_request
        with contextlib.suppress(KubeError):
            await api.call("GET", "/api")
    assert counted("GET", "none") - before == 1


async def asked(folder, status, text, ask):
    runner = await answering(status, text)
    try:
        async with connect(kubeconfig=kubeconfig(folder, runner.addresses[0][1])) as api:
            return await ask(api)
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("text", ["<html>welcome</html>", "", "null", "[]", '"x"', "{", "[" * 100_000, "{}"])
async def test_a_success_that_is_not_the_api_servers_is_no_answer(tmp_path, text):
    for ask in (
        lambda api: api.get(SECRETS, "ns", "a"),
        lambda api: api.get_or_none(SECRETS, "ns", "a"),
        lambda api: api.list(SECRETS, "ns"),
        lambda api: api.apply(SECRETS, {"metadata": {"name": "a"}}, "tests"),
        lambda api: LeaseElector(api, "ns", "lease", "me").attempt(),
    ):
        with pytest.raises(KubeError) as caught:
            await asked(tmp_path, 200, text, ask)
        assert caught.value.status in NO_ANSWER


@pytest.mark.parametrize("text", ["{}", '{"items": null}', '{"items": {}}'])
async def test_an_answer_without_a_list_is_no_empty_list(tmp_path, text):
    with pytest.raises(KubeError):
        await asked(tmp_path, 200, text, lambda api: api.list(SECRETS, "ns"))


async def test_only_the_api_servers_word_tells_that_an_object_does_not_exist(tmp_path):
    stated = '{"kind": "Status", "reason": "NotFound", "message": "secrets \\"a\\" not found", "code": 404}'
    assert await asked(tmp_path, 404, stated, lambda api: api.get_or_none(SECRETS, "ns", "a")) is None
    for text in ("404 page not found", "<html>default backend</html>", "{}", '{"message": "no such route"}'):
        with pytest.raises(KubeError) as caught:
            await asked(tmp_path, 404, text, lambda api: api.get_or_none(SECRETS, "ns", "a"))
        assert not isinstance(caught.value, ObjectNotFound)


async def test_a_refusal_names_its_cause(tmp_path):
    text = '{"message": "forbidden", "details": {"causes": [{"reason": "NamespaceTerminating"}]}}'
    with pytest.raises(KubeError) as caught:
        await asked(tmp_path, 403, text, lambda api: api.get(SECRETS, "ns", "a"))
    assert (caught.value.cause, caught.value.may_pass) == (NAMESPACE_ENDS, False)


def kubeconfig_with_certificates(folder, authority):
    own = base64.b64encode((TLS / "good.pem").read_bytes()).decode()
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "n",
        "clusters": [{"name": "n", "cluster": {
            "server": "https://127.0.0.1:1", "certificate-authority-data": base64.b64encode(authority).decode(),
        }}],
        "contexts": [{"name": "n", "context": {"cluster": "n", "user": "n"}}],
        "users": [{"name": "n", "user": {"client-certificate-data": own, "client-key-data": own}}],
    }  # fmt: skip
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return str(path)


async def test_no_key_or_certificate_of_a_kubeconfig_lies_in_a_file_while_it_is_used(tmp_path, monkeypatch):
    written = tmp_path / "temporary"
    written.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(written))
    config = kubeconfig_with_certificates(tmp_path, (TLS / "authority.pem").read_bytes())
    for _ in ("first", "again"):
        async with connect(kubeconfig=config):
            assert list(written.iterdir()) == []
    with pytest.raises(KubeError, match=r"kubeconfig .*: not usable"):
        async with connect(kubeconfig=kubeconfig_with_certificates(tmp_path, b"no certificate")):
            pass
    assert list(written.iterdir()) == []
