"""Serve the console: pages, their files and a stream of events.

Nothing can be changed through it.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import structlog
from aiohttp import web
from pydantic import ValidationError
from structlog.typing import FilteringBoundLogger

from pocket.api.miner_status import SESSION_PATH, Explanation
from pocket.errors import ConfigurationError
from pocket_console.assets import TYPES, files
from pocket_console.collector import Collector
from pocket_console.fetch import FetchError, fetch_json
from pocket_console.pages import render
from pocket_console.snapshot import ConsoleSnapshot, Links, MinerSnapshot
from pocket_console.views.fleet import fleet_view
from pocket_console.views.merged import Merged, merged
from pocket_console.views.overview import overview_view
from pocket_console.views.services import services_view
from pocket_console.views.sessions import (
    SessionFilter,
    Show,
    find_session,
    session_detail,
    sessions_view,
)
from pocket_console.views.suppliers import SupplierFilter, supplier_detail, suppliers_view

_LOG: FilteringBoundLogger = structlog.get_logger()
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_NO_LINKS: Final = Links()
_STREAMS: Final = 64
_HEARTBEAT_SECONDS: Final = 15.0
_WRITE_SECONDS: Final = 30.0
"""For a client that has stopped reading."""
_ERROR_PAGE: Final = "error.html"
_EXPLAIN_SECONDS: Final = 6.0
_LONGEST: Final = 256
_YEAR_SECONDS: Final = 31_536_000

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def host_of(header: str) -> str:
    """Return the host name of a Host header without its port, in lower case."""
    name = header.strip().lower()
    return name[: name.index("]") + 1] if name.startswith("[") and "]" in name else name.partition(":")[0]


def _bracketed(host: str) -> str:
    """Return a host name or address as a Host header has it."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


class Console:
    """The web application of one collector.

    Requests whose Host is neither a loopback name nor among `hosts` are refused, which stops pages of other origins
    that rebind their name to this address.
    """

    def __init__(self, collector: Collector, *, links: Links = _NO_LINKS, hosts: Sequence[str] = ()) -> None:
        self._collector = collector
        self._links = links
        self._hosts = _LOOPBACK | {_bracketed(host.lower()) for host in hosts}
        self._streams = 0
        self._stopping = asyncio.Event()
        self._picture: tuple[int, Merged] | None = None

    def application(self) -> web.Application:
        """Return the application with its routes."""
        app = web.Application(middlewares=[self._guarded], client_max_size=0)
        app.add_routes(
            [
                web.get("/", self._overview),
                web.get("/sessions", self._sessions),
                web.get("/sessions/{supplier}/{session}", self._session),
                web.get("/suppliers", self._suppliers),
                web.get("/suppliers/{address}", self._supplier),
                web.get("/services", self._services),
                web.get("/fleet", self._fleet),
                web.get("/events", self._events),
                web.get("/assets/{name}", self._asset),
                web.get("/health", self._health),
            ]
        )
        app.on_shutdown.append(self._stop)
        return app

    async def _stop(self, _: web.Application) -> None:
        self._stopping.set()

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse foreign hosts and add the headers that protect the page."""
        if host_of(request.headers.get("Host", "")) not in self._hosts:
            refusal = web.Response(status=421, text="this host name is not served: see relayctl console --allow-host\n")
            refusal.headers.update(_HEADERS)
            return refusal
        try:
            answer = await handler(request)
        except web.HTTPException as error:
            answer = await self._failed(request, error)
        except Exception as error:  # noqa: BLE001 - a defect of one page must not show its internals
            _LOG.error("page failed", exc_info=error, path=request.path)
            answer = web.Response(status=500, text="the console failed to make this page: see its log\n")
        if not answer.prepared:
            answer.headers.update(_HEADERS)
            answer.headers.setdefault("Cache-Control", "no-store")
        return answer

    async def _failed(self, request: web.Request, error: web.HTTPException) -> web.Response:
        text = error.text if error.text and error.status != 404 else ""
        answer = await self._page(request, _ERROR_PAGE, lambda *_: {"status": error.status, "text": text})
        answer.set_status(error.status)
        return answer

    # Pages.

    def _current(self) -> tuple[ConsoleSnapshot, Merged, float]:
        """Return the newest snapshot, merged once per version, and the time."""
        snapshot, now = self._collector.snapshot, self._collector.now()
        if self._picture is None or self._picture[0] != snapshot.version:
            self._picture = (snapshot.version, merged(snapshot, now))
        stale = frozenset(miner.origin.name for miner in snapshot.miners if miner.freshness.stale(now))
        return snapshot, dataclasses.replace(self._picture[1], stale=stale), now

    async def _page(
        self, request: web.Request, name: str, view: Callable[[ConsoleSnapshot, Merged, float], Mapping[str, Any]]
    ) -> web.Response:
        """Render a page in a thread, so that a large one delays no other."""

        def work() -> str:
            snapshot, picture, now = self._current()
            values = view(snapshot, picture, now)
            freshness = [row.freshness for row in snapshot.miners] + [row.freshness for row in snapshot.relayers]
            silent = sum(row.stale(now) for row in freshness)
            return render(
                name, path=request.path, query=dict(request.query), links=self._links, version=snapshot.version,
                height=picture.height, silent=silent, processes=len(snapshot.miners) + len(snapshot.relayers),
                refreshed=name != _ERROR_PAGE, **values,
            )  # fmt: skip

        return web.Response(text=await asyncio.to_thread(work), content_type="text/html")

    async def _overview(self, request: web.Request) -> web.Response:
        return await self._page(request, "overview.html", lambda *now: {"view": overview_view(*now)})

    async def _sessions(self, request: web.Request) -> web.Response:
        show = _text(request, "show")
        wanted = SessionFilter(
            show=Show(show) if show in set(Show) else Show.ALL,
            service=_text(request, "service"),
            supplier=_text(request, "supplier").strip(),
            session=_text(request, "session").strip(),
            page=_number(request),
        )
        return await self._page(
            request, "sessions.html", lambda _, picture, __: {"view": sessions_view(picture, wanted)}
        )

    async def _session(self, request: web.Request) -> web.Response:
        supplier, session_id = request.match_info["supplier"], request.match_info["session"]
        _, picture, _ = await asyncio.to_thread(self._current)
        explanation, error = await self._explanation(supplier, session_id)
        session = find_session(picture, supplier, session_id)
        if session is None and explanation is not None:
            session = explanation.open or explanation.ended
        if session is None:
            raise web.HTTPNotFound
        shown = session
        return await self._page(
            request, "session.html",
            lambda _, picture, __: {
                "view": session_detail(picture, shown), "explanation": explanation, "error": error,
            },
        )  # fmt: skip

    async def _explanation(self, supplier: str, session_id: str) -> tuple[Explanation | None, str]:
        """Return what the miners know of a session, or why nothing is known.

        The owner of an open session comes first.
        """

        async def ask(miner: MinerSnapshot) -> Explanation:
            query = {"supplier": supplier, "session": session_id}
            body = await fetch_json(self._collector.fetcher, miner.origin, SESSION_PATH, query)
            return Explanation.model_validate(body)

        miners = self._collector.snapshot.miners
        try:
            async with asyncio.timeout(_EXPLAIN_SECONDS):
                answers = await asyncio.gather(*map(ask, miners), return_exceptions=True)
        except TimeoutError:
            return None, "the miners did not answer in time"
        explanations = [answer for answer in answers if isinstance(answer, Explanation)]
        errors = [error for error in answers if isinstance(error, FetchError | ValidationError)]
        for error in answers:
            if isinstance(error, BaseException) and error not in errors:
                raise error
        failures = [str(error) for error in errors if not (isinstance(error, FetchError) and error.status == 404)]
        best = max(explanations, key=lambda row: (row.open is None, len(row.facts)), default=None)
        return best, "" if best is not None else "; ".join(failures)

    async def _suppliers(self, request: web.Request) -> web.Response:
        wanted = SupplierFilter(_text(request, "q").strip(), _text(request, "problems") == "1", _number(request))
        return await self._page(
            request, "suppliers.html",
            lambda snapshot, picture, _: {"view": suppliers_view(snapshot, picture, wanted)},
        )  # fmt: skip

    async def _supplier(self, request: web.Request) -> web.Response:
        address = request.match_info["address"]
        snapshot, picture, _ = await asyncio.to_thread(self._current)
        if await asyncio.to_thread(supplier_detail, snapshot, picture, address) is None:
            raise web.HTTPNotFound
        return await self._page(
            request, "supplier.html",
            lambda snapshot, picture, _: {"view": supplier_detail(snapshot, picture, address)},
        )  # fmt: skip

    async def _services(self, request: web.Request) -> web.Response:
        return await self._page(request, "services.html", lambda *now: {"view": services_view(*now)})

    async def _fleet(self, request: web.Request) -> web.Response:
        return await self._page(request, "fleet.html", lambda *now: {"view": fleet_view(*now)})

    # Everything else.

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Send the version of each new snapshot. The page then fetches itself again."""
        if self._streams >= _STREAMS:
            return web.Response(status=503, text="too many open pages\n")
        answer = web.StreamResponse(headers={**_HEADERS, "Cache-Control": "no-store"})
        answer.content_type = "text/event-stream"
        self._streams += 1
        try:
            with contextlib.suppress(ConnectionError, TimeoutError):
                await answer.prepare(request)
                await self._stream(answer)
        finally:
            self._streams -= 1
        return answer

    async def _stream(self, answer: web.StreamResponse) -> None:
        seen = self._collector.snapshot.version
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await _written(answer, b"retry: 2000\n\n")
            while not stopping.done():
                newer = asyncio.create_task(self._collector.wait_newer(seen, _HEARTBEAT_SECONDS))
                await asyncio.wait({newer, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if stopping.done():
                    newer.cancel()
                    return
                if newer.result():
                    seen = self._collector.snapshot.version
                    await _written(answer, f"id: {seen}\nevent: snapshot\ndata: {seen}\n\n".encode())
                else:
                    await _written(answer, b": still here\n\n")
        finally:
            stopping.cancel()

    async def _asset(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        body = files().get(name)
        if body is None:
            raise web.HTTPNotFound
        suffix = f".{name.rpartition('.')[2]}"
        answer = web.Response(body=body, content_type=TYPES[suffix], charset="utf-8")
        answer.headers["Cache-Control"] = f"public, max-age={_YEAR_SECONDS}, immutable"
        return answer

    async def _health(self, _: web.Request) -> web.Response:
        snapshot = self._collector.snapshot
        return web.json_response({"status": "ok", "version": snapshot.version})


async def _written(answer: web.StreamResponse, data: bytes) -> None:
    """Write to a stream. Raises TimeoutError for a client that reads nothing."""
    async with asyncio.timeout(_WRITE_SECONDS):
        await answer.write(data)


def _text(request: web.Request, name: str) -> str:
    return request.query.get(name, "")[:_LONGEST]


def _number(request: web.Request) -> int:
    text = request.query.get("page", "1")
    return int(text) if text.isascii() and text.isdecimal() and 0 < len(text) < 9 else 1


@contextlib.asynccontextmanager
async def serving(console: Console, host: str, port: int) -> AsyncIterator[int]:
    """Serve while the context is open, and yield the port.

    Raises ConfigurationError if the address cannot be used.
    """
    runner = web.AppRunner(
        console.application(),
        access_log=None,
        handle_signals=False,
        shutdown_timeout=2,
        handler_cancellation=True,  # a page that is closed gives its place among the streams back at once
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise ConfigurationError(f"console: {host}:{port} cannot be used: {error.strerror}") from error
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
