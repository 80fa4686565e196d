"""A miner's status API with any content, over real HTTP, and a console over it."""

import contextlib
import json
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from console_snapshots import state
from pocket.api import miner_status as api
from pocket_console.collector import Collector
from pocket_console.discovery import GivenAddresses
from pocket_console.fetch import HttpFetcher
from pocket_console.server import Console

METRICS = """
# TYPE pocket_relayer_relays_received counter
pocket_relayer_relays_received_total{service="eth",rpc_type="json_rpc"} 12.0
pocket_relayer_relays_served_total{service="eth",rpc_type="json_rpc"} 10.0
pocket_relayer_relays_rejected_total{service="eth",transport="http",reason="budget_exhausted"} 2.0
pocket_relayer_relay_seconds_bucket{service="eth",le="0.01"} 8.0
pocket_relayer_relay_seconds_bucket{service="eth",le="+Inf"} 10.0
pocket_relayer_relays_in_flight 3.0
pocket_relayer_build_info{version="0.1.0",python="3.11"} 1.0
"""


class StatusServer:
    """Serves a miner's and a relayer's pages. `fails` are paths that answer 503, `requests` counts them by path."""

    def __init__(self, sessions=(), outcomes=(), suppliers=(), page=api.PAGE_LIMIT, **fields):
        self.sessions, self.outcomes, self.suppliers, self.page = list(sessions), list(outcomes), list(suppliers), page
        self.fields = fields
        self.fails: set[str] = set()
        self.requests: dict[str, int] = {}
        self.report = {"component": "relayer", "workers": 2, "addresses": ["pokt1" + "a" * 38], "height": 112}
        self.explanations: dict[tuple[str, str], api.Explanation] = {}

    def _rows(self, rows, after, key):
        left = [row for row in rows if key(row) > after]
        return left[: self.page], len(left) > self.page

    async def _answer(self, request):
        self.requests[request.path] = self.requests.get(request.path, 0) + 1
        if request.path in self.fails:
            raise web.HTTPServiceUnavailable(text="not now")
        after = request.query.get("after", "")
        if request.path == api.STATE_PATH:
            last = self.outcomes[-1].number if self.outcomes else 0
            return state(**({"last_outcome": last} | self.fields))
        if request.path == api.SESSIONS_PATH:
            rows, more = self._rows(self.sessions, after, lambda row: f"{row.supplier}/{row.session_id}")
            last = f"{rows[-1].supplier}/{rows[-1].session_id}" if more else ""
            return api.SessionPage(height=112, rows=tuple(rows), next=last)
        if request.path == api.OUTCOMES_PATH:
            rows, more = self._rows(self.outcomes, int(after), lambda row: row.number)
            return api.OutcomePage(rows=tuple(rows), next=rows[-1].number if rows else int(after), more=more)
        if request.path == api.SUPPLIERS_PATH:
            rows, more = self._rows(self.suppliers, after, lambda row: row.address)
            return api.SupplierPage(rows=tuple(rows), next=rows[-1].address if more else "")
        found = self.explanations.get((request.query["supplier"], request.query["session"]))
        if found is None:
            raise web.HTTPNotFound
        return found

    async def _status(self, request):
        return web.Response(text=(await self._answer(request)).model_dump_json(), content_type="application/json")

    async def _relayer(self, request):
        if request.path in self.fails:
            raise web.HTTPServiceUnavailable(text="not now")
        return web.Response(text=METRICS if request.path == "/metrics" else json.dumps(self.report))

    def application(self):
        app = web.Application()
        for path in (api.STATE_PATH, api.SESSIONS_PATH, api.OUTCOMES_PATH, api.SUPPLIERS_PATH, api.SESSION_PATH):
            app.router.add_get(path, self._status)
        app.router.add_get("/metrics", self._relayer)
        app.router.add_get("/report", self._relayer)
        return app


@contextlib.asynccontextmanager
async def collected(server: StatusServer, clock=None) -> AsyncIterator[Collector]:
    """Yield a collector of one miner and one relayer that does not run by itself."""
    async with TestServer(server.application()) as running, aiohttp.ClientSession() as http:
        url = str(running.make_url("")).rstrip("/")
        yield Collector(GivenAddresses([url], [url]), HttpFetcher(http), **({"clock": clock} if clock else {}))


@contextlib.asynccontextmanager
async def opened_console(collector: Collector, **options):
    """Yield a function that gets a page of a console: (status, text, headers)."""
    async with TestServer(Console(collector, **options).application()) as running, aiohttp.ClientSession() as http:

        async def get(path, method="GET", **headers):
            url = running.make_url("").join(running.make_url(path))
            async with http.request(method, url, headers=headers) as answer:
                return answer.status, await answer.text(), answer.headers

        get.server, get.http = running, http
        yield get
