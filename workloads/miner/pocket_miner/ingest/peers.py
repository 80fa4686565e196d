"""Exchange seals and relays that Redis has lost with other miners.

They are those of the same RelayMiner. Peers are not trusted: every relay is validated like any other, and a peer's seal
counts only if neither Redis nor the own volume has one, and relays that are here have its root. One of fewer relays
than are here counts only with a claim that was signed with the supplier's key.
"""

import asyncio
import base64
import binascii
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import structlog
from aiohttp import web
from structlog.typing import FilteringBoundLogger

from pocket.errors import DecodingError
from pocket.redis_store.log_positions import stream_id
from pocket.redis_store.seals import SessionSeal
from pocket.redis_store.stream_reader import StreamExtent
from pocket_miner.storage.audit import Audit
from pocket_miner.storage.relay_store import RelayStore

_LOG: FilteringBoundLogger = structlog.get_logger()
_PAGE_BYTES = 4 * 1024 * 1024
_SECONDS = 5.0
_REST_SECONDS = 15.0
"""How long a peer that hung is not asked. Each supplier would wait for it, several times a block."""
_IDS_AT_ONCE = 50  # session ids in one URL
_ANSWER_BYTES = 64 * 1024 * 1024
_PIECE_BYTES = 64 * 1024
_HEIGHT_DIGITS = 19
_PEER_ERRORS = (
    aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError, TypeError, OverflowError, RecursionError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PeerSession:
    """A session on a peer's volume, and the stream position that the peer has read."""

    url: str
    session_id: str
    header: bytes
    position: str
    origin: str
    count: int

    def may_have_more(self, origin: str, stream: StreamExtent) -> bool:
        """Return True if the peer may hold relays that the stream has lost.

        That is so if it read entries of another origin, or further than the stream reaches now, or if it has more
        relays than the stream has entries: it may have read a new stream to its end after the former one was lost.
        """
        if not self.count:
            return False
        return self.origin != origin or (
            self.count > stream.entries or stream_id(self.position) > stream_id(stream.last_id)
        )


def _sessions(relay_store: RelayStore, supplier: str) -> list[dict[str, Any]]:
    """Return a supplier's sessions on the volume as JSON."""
    return [
        {
            "session_id": stored.session_id, "header": stored.header.hex(), "position": stored.position,
            "incarnation": stored.origin, "count": file.count(supplier, stored.session_id),
        }
        for end, stored in relay_store.sessions()
        if stored.supplier == supplier and (file := relay_store.known(end)) is not None
    ]  # fmt: skip


def routes(opened: Callable[[], tuple[RelayStore, Audit] | None]) -> list[web.RouteDef]:
    """Return the routes of the admin port that serve peers.

    `opened` returns the stores of the volume, None before it is opened. Peers get status 503 until then, which is not
    the same as an empty answer.
    """

    def volume() -> tuple[RelayStore, Audit]:
        stores = opened()
        if stores is None:
            raise web.HTTPServiceUnavailable(text="the volume is not opened yet")
        return stores

    async def sessions(request: web.Request) -> web.Response:
        relay_store, _ = volume()
        return web.json_response(await asyncio.to_thread(_sessions, relay_store, request.query.get("supplier", "")))

    async def seals(request: web.Request) -> web.Response:
        _, audit = volume()
        by_session = await asyncio.to_thread(audit.seals, request.query.get("supplier", ""))
        return web.json_response([{"end": end, "seal": seal.encode()} for end, seal in by_session.values()])

    async def relays(request: web.Request) -> web.Response:
        relay_store, _ = volume()
        try:
            end, after = int(request.query["end"]), bytes.fromhex(request.query.get("after", ""))
            supplier, session_id = request.query["supplier"], request.query["session"]
        except (ValueError, KeyError):
            return web.json_response({"error": "name supplier, session, end and after"}, status=400)
        file = relay_store.known(end)
        if file is None:
            return web.json_response({"relays": [], "next": None})
        values, last = await asyncio.to_thread(file.page, supplier, session_id, after, _PAGE_BYTES)
        texts = [base64.b64encode(value).decode() for value in values]
        return web.json_response({"relays": texts, "next": last.hex() if values else None})

    async def claims(request: web.Request) -> web.Response:
        _, audit = volume()
        end = request.query.get("end", "")
        number = int(end) if end.isascii() and end.isdecimal() and len(end) < _HEIGHT_DIGITS else 0
        groups = await asyncio.to_thread(audit.signed, request.query.get("supplier", ""), number)
        return web.json_response({"claims": [base64.b64encode(group.tx_raw).decode() for group in groups]})

    async def ended(request: web.Request) -> web.Response:
        _, audit = volume()
        session_ids = request.query.get("sessions", "").split(",")
        ended_ids = await asyncio.to_thread(audit.with_outcome, request.query.get("supplier", ""), session_ids)
        return web.json_response({"ended": ended_ids})

    return [
        web.get("/peer/sessions", sessions), web.get("/peer/seals", seals), web.get("/peer/relays", relays),
        web.get("/peer/claims", claims), web.get("/peer/ended", ended),
    ]  # fmt: skip


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    """Return the body of an answer. Raises ValueError if it is too large."""
    body = bytearray()
    async for piece in answer.content.iter_chunked(_PIECE_BYTES):
        body += piece
        if len(body) > _ANSWER_BYTES:
            raise ValueError(f"the answer is larger than {_ANSWER_BYTES} bytes")
    return bytes(body)


def _peer_session(url: str, stated: Mapping[str, Any]) -> PeerSession:
    """Read a session of a peer's answer.

    Raises ValueError, KeyError, TypeError or OverflowError.
    """
    session = PeerSession(
        url, str(stated["session_id"]), bytes.fromhex(stated["header"]), str(stated["position"]),
        str(stated["incarnation"]), int(stated["count"]),
    )  # fmt: skip
    stream_id(session.position)
    return session


class Peers:
    """Client of the other miners.

    A peer that does not answer is skipped.
    """

    def __init__(self, http: aiohttp.ClientSession, urls: Callable[[], Sequence[str]]) -> None:
        self._http = http
        self._urls = urls
        self._rests_until: dict[str, float] = {}
        """Peers that hung (loop's clock)."""

    @property
    def urls(self) -> frozenset[str]:
        """Return the URLs of the miners that were recently live."""
        return frozenset(self._urls())

    async def _get(self, peer: str, path: str, query: Mapping[str, str]) -> Any:
        """Return the answer of a peer.

        Raises TimeoutError for one that hangs, for a while without asking it.
        """
        now = asyncio.get_running_loop().time
        if now() < self._rests_until.get(peer, 0.0):
            raise TimeoutError(f"it hung and is not asked for {_REST_SECONDS:.0f} s")
        timeout = aiohttp.ClientTimeout(total=_SECONDS)
        try:
            async with self._http.get(f"{peer}{path}", params=query, timeout=timeout) as answer:
                answer.raise_for_status()
                return json.loads(await _body(answer))
        except TimeoutError:
            self._rests_until = {url: until for url, until in self._rests_until.items() if until > now()}
            self._rests_until[peer] = now() + _REST_SECONDS
            raise

    async def sessions(self, supplier: str) -> tuple[bool, list[PeerSession]]:
        """Return whether all peers answered, and a supplier's sessions on their volumes."""
        answers = await asyncio.gather(*(self._sessions_at(url, supplier) for url in self._urls()))
        return None not in answers, [session for sessions in answers if sessions is not None for session in sessions]

    async def _sessions_at(self, url: str, supplier: str) -> list[PeerSession] | None:
        """Return the sessions on one peer's volume, None if it did not answer."""
        try:
            sessions = await self._get(url, "/peer/sessions", {"supplier": supplier})
            return [_peer_session(url, session) for session in sessions]
        except _PEER_ERRORS as error:
            _LOG.info("sessions not read from a peer", peer=url, error=error)
            return None

    async def seals(self, supplier: str) -> list[SessionSeal]:
        """Return the seals that peers state for a supplier's unfinished sessions.

        They are not checked.
        """
        answers = await asyncio.gather(*(self._seals_at(url, supplier) for url in self._urls()))
        return list(dict.fromkeys(seal for seals in answers for seal in seals))

    async def _seals_at(self, url: str, supplier: str) -> list[SessionSeal]:
        """Return the seals of one peer, none if it did not answer."""
        try:
            stated = await self._get(url, "/peer/seals", {"supplier": supplier})
            return [SessionSeal.decode(seal["seal"]) for seal in stated]
        except (*_PEER_ERRORS, DecodingError) as error:
            _LOG.info("seals not read from a peer", peer=url, error=error)
            return []

    async def claims(self, supplier: str, end: int) -> set[bytes]:
        """Return the transactions with claims of one session end that peers state.

        They are not checked.
        """
        return set[bytes]().union(*await asyncio.gather(*(self._claims_at(url, supplier, end) for url in self._urls())))

    async def _claims_at(self, url: str, supplier: str, end: int) -> set[bytes]:
        """Return the transactions of one peer, none if it did not answer."""
        try:
            claims = (await self._get(url, "/peer/claims", {"supplier": supplier, "end": str(end)}))["claims"]
            return {base64.b64decode(text, validate=True) for text in claims}
        except (*_PEER_ERRORS, binascii.Error) as error:
            _LOG.info("claims not read from a peer", peer=url, error=error)
            return set()

    async def ended(self, supplier: str, session_ids: Sequence[str]) -> tuple[bool, set[str]]:
        """Return whether all peers answered, and the sessions with a recorded outcome."""
        answers = await asyncio.gather(*(self._ended_at(url, supplier, session_ids) for url in self._urls()))
        ended_ids = set[str]().union(*(ids for ids in answers if ids is not None))
        return None not in answers, ended_ids.intersection(session_ids)

    async def _ended_at(self, url: str, supplier: str, session_ids: Sequence[str]) -> set[str] | None:
        """Return what `ended` does of one peer, None if it did not answer."""
        ended_ids: set[str] = set()
        try:
            for at in range(0, len(session_ids), _IDS_AT_ONCE):
                query = {"supplier": supplier, "sessions": ",".join(session_ids[at : at + _IDS_AT_ONCE])}
                ended_ids.update(map(str, (await self._get(url, "/peer/ended", query))["ended"]))
        except _PEER_ERRORS as error:
            _LOG.info("outcomes not read from a peer", peer=url, error=error)
            return None
        return ended_ids

    async def relays(
        self, session: PeerSession, supplier: str, end: int, take: Callable[[list[bytes]], Awaitable[None]]
    ) -> bool:
        """Pass all relays of a peer's session to `take`, page by page.

        Returns False if the peer failed, or did not go on.
        """
        after = ""
        query = {"supplier": supplier, "session": session.session_id, "end": str(end)}
        while True:
            try:
                page = await self._get(session.url, "/peer/relays", {**query, "after": after})
                values = [base64.b64decode(text, validate=True) for text in page["relays"]]
                before, after = after, str(page["next"] or "")
                if values and bytes.fromhex(after) <= bytes.fromhex(before):
                    raise ValueError("the page names no later one")
            except (*_PEER_ERRORS, binascii.Error) as error:
                _LOG.warning("relays not read from a peer", peer=session.url, error=error)
                return False
            if not values:
                return True
            await take(values)
