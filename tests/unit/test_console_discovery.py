"""Relayers and miners are found through the Kubernetes API, and read through it too."""

import contextlib
import json

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from click.testing import CliRunner

from console_miner import StatusServer
from console_snapshots import ALICE, opened, supplier
from pocket.kube.api_client import connect
from pocket_console.collector import Collector
from pocket_console.discovery import ClusterPods, DiscoveryError
from pocket_console.fetch import KubernetesFetcher
from pocket_console.snapshot import Component
from relayctl.main import main

LABELS = {"pocket.network/relayminer": "trial"}


def pod(name, component, address="10.0.0.7", relay_miner="trial"):
    return {
        "metadata": {
            "name": name, "namespace": "pocket",
            "labels": {"pocket.network/relayminer": relay_miner, "app.kubernetes.io/component": component},
        },
        "status": {"podIP": address},
    }  # fmt: skip


class ApiServer:
    """Lists resources and proxies to the pods' admin ports, as an API server does."""

    def __init__(self, miner):
        self.pods = [pod("trial-miner-0", "miner"), pod("trial-relayer-x", "relayer"), pod("trial-redis-0", "redis"),
                     pod("trial-miner-1", "miner", "")]  # fmt: skip
        self.relay_miners = [{"metadata": {"name": "trial", "namespace": "pocket"}},
                             {"metadata": {"name": "other", "namespace": "pocket"}}]  # fmt: skip
        self.suppliers = [
            {"metadata": {"name": "alice"}, "spec": {"operatorAddress": ALICE, "relayMinerRef": {"name": "trial"}}},
            {"metadata": {"name": "bob"}, "spec": {"operatorAddress": "x", "relayMinerRef": {"name": "other"}}},
        ]  # fmt: skip
        self.miner = miner
        self.forbidden = False
        self.selectors = []

    async def _list(self, request):
        if self.forbidden:
            return web.json_response({"message": "pods is forbidden"}, status=403)
        self.selectors.append(request.query.get("labelSelector"))
        rows = {"pods": self.pods, "relayminers": self.relay_miners, "suppliers": self.suppliers}
        return web.json_response({"items": rows[request.match_info["plural"]], "metadata": {}})

    async def _proxy(self, request):
        inner = request.clone(rel_url=f"/{request.match_info['path']}?{request.query_string}")
        handler = self.miner._status if request.match_info["path"].startswith("status/") else self.miner._relayer
        return await handler(inner)

    def application(self):
        app = web.Application()
        app.router.add_get("/api/v1/namespaces/pocket/pods/{pod}/proxy/{path:.+}", self._proxy)
        app.router.add_get("/api/v1/namespaces/pocket/{plural}", self._list)
        app.router.add_get("/apis/pocket.network/v1beta1/namespaces/pocket/{plural}", self._list)
        return app


@contextlib.asynccontextmanager
async def a_cluster(tmp_path, server):
    async with TestServer(server.application()) as running:
        url = str(running.make_url("")).rstrip("/")
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": url}}], "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        }  # fmt: skip
        path = tmp_path / "kubeconfig"
        path.write_text(json.dumps(config))
        async with connect(kubeconfig=str(path)) as api:
            yield api


async def test_pods_of_a_relay_miner_are_found_and_read_through_the_api_server(tmp_path):
    server = ApiServer(StatusServer([opened()], suppliers=[supplier()]))
    async with a_cluster(tmp_path, server) as api:
        collector = Collector(ClusterPods(api, "pocket", "trial"), KubernetesFetcher(api))
        shot = await collector.once()
    assert [row.origin.name for row in shot.miners] == ["trial-miner-0"]
    assert [row.origin.name for row in shot.relayers] == ["trial-relayer-x"]
    assert shot.miners[0].freshness.error == ""
    assert len(shot.miners[0].sessions) == 1
    assert shot.relayers[0].samples[-1].services["eth"].served == 10
    assert [row["metadata"]["name"] for row in shot.cluster.relay_miners] == ["trial"]
    assert [row["metadata"]["name"] for row in shot.cluster.suppliers] == ["alice"]
    assert server.selectors[0] == "pocket.network/relayminer=trial"


async def test_inside_a_cluster_pods_are_reached_at_their_addresses(tmp_path):
    server = ApiServer(StatusServer())
    server.pods = [pod("a", "miner", "10.0.0.7"), pod("b", "relayer", "fd00::7")]
    async with a_cluster(tmp_path, server) as api:
        found = await ClusterPods(api, "pocket", proxied=False).find()
    assert [(row.component, row.url) for row in found.origins] == [
        (Component.MINER, "http://10.0.0.7:9090"), (Component.RELAYER, "http://[fd00::7]:9090")
    ]  # fmt: skip
    assert len(found.relay_miners) == 2


async def test_what_the_api_server_refuses_is_named(tmp_path):
    server = ApiServer(StatusServer())
    server.miner.fails.add("/status/state")
    async with a_cluster(tmp_path, server) as api:
        shot = await Collector(ClusterPods(api, "pocket"), KubernetesFetcher(api)).once()
        assert "503" in shot.miners[0].freshness.error
        server.forbidden = True
        with pytest.raises(DiscoveryError, match="403 pods is forbidden"):
            await ClusterPods(api, "pocket").find()


@pytest.mark.parametrize("url", ["http://user:secret@host:9090", "ftp://host", "http://host:9090/path", "host:9090"])
@pytest.mark.parametrize("command", ["console", "top"])
def test_an_address_that_is_none_or_holds_credentials_is_refused(command, url):
    run = CliRunner().invoke(main, [command, "--miner", url])
    assert run.exit_code == 2
    assert "without credentials and path" in run.output
    assert "secret" not in run.output


def test_without_addresses_and_without_a_cluster_the_commands_say_what_to_do(tmp_path):
    run = CliRunner().invoke(main, ["top", "--once"], env={"KUBECONFIG": str(tmp_path / "none")})
    assert run.exit_code == 1
    assert "no cluster configured" in run.output
