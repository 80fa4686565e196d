"""The client of the Kubernetes API reports each request, which the operator shows by method and result."""

import contextlib

import yaml
from aiohttp import web
from prometheus_client import REGISTRY

from pocket.kube.api_client import KubeError, connect
from pocket_operator.controller import operator_metrics


async def answering(status):
    async def answer(_):
        return web.json_response({"message": "m"}, status=status)

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
