"""Report the state of a miner process.

It covers health, readiness, /report and the status API.
"""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web

from pocket.api import miner_status as api
from pocket.api.problems import Problem
from pocket.api.status import timestamp
from pocket.api.workload import MinerConfig
from pocket.coordination.rendezvous import shard_of
from pocket.errors import DecodingError
from pocket.runtime.version import VERSION
from pocket_miner.ownership.redis_watch import RedisWatch
from pocket_miner.status.chain_diagnostics import ChainDiagnostics
from pocket_miner.status.handover import Handover
from pocket_miner.status.readiness import Readiness
from pocket_miner.status.session_pages import (
    SessionAt,
    ended_session,
    explain_ended,
    explain_open,
    open_session,
    page_of,
    position_of,
)
from pocket_miner.storage.volume import Volume
from pocket_miner.suppliers.factory import SupplierFactory
from pocket_miner.suppliers.fleet import SupplierManager
from pocket_miner.suppliers.latest_block import LatestBlock

_SHOWN_OUTCOMES: Final = 1000
_SUPPLIERS_PER_PAGE: Final = 200
_LONGEST_TEXT: Final = 256


@dataclass(frozen=True, slots=True)
class MinedParts:
    """The parts of a running miner that its status is read from."""

    suppliers: SupplierFactory
    fleet: SupplierManager
    redis_watch: RedisWatch


class ProcessStatus:
    """Answers what the admin port serves.

    `parts` and `volume` return None until they exist.
    """

    def __init__(
        self,
        config: MinerConfig,
        board: LatestBlock,
        readiness: Readiness,
        diagnostics: ChainDiagnostics,
        parts: Callable[[], MinedParts | None],
        volume: Callable[[], Volume | None],
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._board = board
        self._readiness = readiness
        self._diagnostics = diagnostics
        self._parts = parts
        self._volume = volume
        self._handover = Handover(clock)

    # What the operator and probes read.

    def health(self) -> Mapping[str, Any]:
        """Return the body of /health."""
        return {"status": "ok", "phase": self._readiness.phase, "height": self._board.height, "role": self._role()}

    def report(self) -> Mapping[str, Any]:
        """Return the body of /report."""
        report = {
            "component": "miner", "role": self._role(), "height": self._board.height, "chain": self._diagnostics.rows(),
            "phase": self._readiness.phase, "redis": self._readiness.redis, "volume": self._readiness.volume,
            "problems": [problem.model_dump() for problem in self.problems()],
        }  # fmt: skip
        parts = self._parts()
        if parts is None:
            return report
        suppliers, fleet = parts.suppliers, parts.fleet
        if (head := suppliers.audit.head) is not None:
            self._handover.reported(head.number)
        return {
            **report, "keys": suppliers.keyring.digest, "addresses": suppliers.addresses,
            "audit": suppliers.audit.head_row, "owned": sorted(fleet.running), "shards": len(fleet.epochs),
            "leader": fleet.keeper.leads, "suppliers": suppliers.reports.rows(), "looked": fleet.seconds_since_scan(),
        }  # fmt: skip

    async def status(self) -> Mapping[str, Any]:
        """Return the body of /status."""
        parts = self._parts()
        if parts is None:
            return {"height": 0, "sessions": {}, "outcomes": [], "shards": {}, "leader": False, "members": []}
        fleet, audit = parts.fleet, parts.suppliers.audit
        sessions = {
            address: [
                {"session_id": i, "end": s.end, "sealed": s.seal is not None, "service": s.header.service_id}
                for i, s in running.supplier.sessions.items()
            ]
            for address, running in fleet.running.items()
        }
        outcomes = await asyncio.to_thread(audit.recent, _SHOWN_OUTCOMES)
        return {
            "height": self._board.height, "sessions": sessions, "outcomes": outcomes,
            "shards": {str(shard): epoch for shard, epoch in fleet.epochs.items()}, "leader": fleet.keeper.leads,
            "members": sorted(fleet.keeper.members), "nodes": self._diagnostics.nodes(),
        }  # fmt: skip

    def problems(self) -> list[Problem]:
        """Return why this miner is not ready.

        The list is empty if it is ready.
        """
        parts = self._parts()
        missing = parts is not None and self._config.keys_required and not parts.suppliers.addresses
        signer = "" if parts is None else parts.suppliers.keyring.signer_problem
        return list(self._readiness.problems(keys_missing=missing, signer=signer))

    async def hand_over(self) -> None:
        """Wait until the operator has the last outcomes, if one reads the reports.

        For some seconds at most.
        """
        parts = self._parts()
        if parts is not None and (head := parts.suppliers.audit.head) is not None:
            await self._handover.wait(head.number)

    def _role(self) -> str:
        parts = self._parts()
        return "active" if parts is not None and parts.fleet.epochs else "standby"

    # The status API, for people.

    def routes(self) -> Sequence[web.RouteDef]:
        """Return the routes of the status API."""
        return [
            web.get(api.STATE_PATH, self._state),
            web.get(api.SESSIONS_PATH, self._sessions),
            web.get(api.OUTCOMES_PATH, self._outcomes),
            web.get(api.SUPPLIERS_PATH, self._suppliers),
            web.get(api.SESSION_PATH, self._session),
        ]

    def _opened(self) -> tuple[MinedParts, Volume]:
        """Return the parts and the volume.

        Raises HTTPServiceUnavailable before they exist, which is not the same as an empty page.
        """
        parts, volume = self._parts(), self._volume()
        if parts is None or volume is None:
            raise _refusal(web.HTTPServiceUnavailable, "the miner is starting: its volume is not opened yet")
        return parts, volume

    async def _state(self, _: web.Request) -> web.Response:
        volume = self._volume()
        last = await _read(volume.audit_reader.last_number) if volume is not None else 0
        parts = self._parts()
        space, latest, redis = self._readiness.space, self._board.latest, self._readiness.redis
        used, maximum = parts.redis_watch.memory if parts is not None else (0, 0)
        keeper = parts.fleet.keeper if parts is not None else None
        return _json(
            api.MinerState(
                relay_miner=f"{self._config.namespace}/{self._config.name}",
                member=volume.member if volume is not None else "",
                version=VERSION,
                phase=self._readiness.phase.value,
                leader=keeper is not None and keeper.leads,
                members=tuple(sorted(keeper.members)) if keeper is not None else (),
                shards=dict(parts.fleet.epochs) if parts is not None else {},
                shard_count=self._config.shards,
                height=self._board.height,
                block_time=timestamp(datetime.fromtimestamp(latest.time.seconds, UTC)) if latest is not None else "",
                block_seconds=self._config.chain.block_seconds,
                block_age_seconds=round(self._readiness.since_block, 1),
                suppliers=tuple(parts.suppliers.addresses) if parts is not None else (),
                owned=tuple(sorted(parts.fleet.running)) if parts is not None else (),
                sessions=parts.fleet.stages() if parts is not None else {},
                last_outcome=last,
                problems=tuple(self.problems()),
                chain=tuple(api.ChainNote.model_validate(row) for row in self._diagnostics.rows()),
                nodes={
                    name: api.NodeState.model_validate(row) for name, row in self._diagnostics.nodes().items()
                },
                redis=api.RedisState(problem=redis, used_memory=used, max_memory=maximum),
                volume=api.VolumeState(
                    total=space.total if space is not None else 0,
                    free=space.free if space is not None else 0,
                    reserved=space.reserved if space is not None else 0,
                    read_only=volume is not None and volume.read_only,
                    problem=self._readiness.volume,
                ),
            )
        )  # fmt: skip

    async def _sessions(self, request: web.Request) -> web.Response:
        parts, volume = self._opened()
        running = {address: worker.supplier.sessions for address, worker in parts.fleet.running.items()}
        chosen, following = page_of(running, _text(request, "after"), _limit(request, api.PAGE_LIMIT))
        rows = [SessionAt(a, s, parts.suppliers.reports.of(a).stage(s.session_id)) for a, s in chosen]
        leaves = await _read(_leaves, volume, rows)
        height = self._board.height
        made = tuple(open_session(row, count, height) for row, count in zip(rows, leaves, strict=True))
        return _json(api.SessionPage(height=height, rows=made, next=following))

    async def _outcomes(self, request: web.Request) -> web.Response:
        _, volume = self._opened()
        try:
            after = position_of(request.query.get("after", "0"))
        except DecodingError as error:
            raise _refusal(web.HTTPBadRequest, str(error)) from None
        limit = _limit(request, api.PAGE_LIMIT)
        page, first = await _read(volume.audit_reader.page, after, limit + 1)
        rows = [ended_session(number, outcome) for number, outcome in page[:limit]]
        last = rows[-1].number if rows else after
        if request.query.get("reader") == api.OPERATOR_READER:
            self._handover.shown(last)
        return _json(api.OutcomePage(rows=tuple(rows), next=last, more=len(page) > limit, first=first))

    async def _suppliers(self, request: web.Request) -> web.Response:
        parts, _ = self._opened()
        after, limit = _text(request, "after"), _limit(request, _SUPPLIERS_PER_PAGE)
        known = sorted(a for a in {*parts.suppliers.addresses, *parts.fleet.running} if a > after)
        rows = tuple(self._supplier(parts, address) for address in known[:limit])
        return _json(api.SupplierPage(rows=rows, next=rows[-1].address if len(known) > limit else ""))

    def _supplier(self, parts: MinedParts, address: str) -> api.MinedSupplier:
        report = parts.suppliers.reports.of(address)
        stake = report.stake or {}
        return api.MinedSupplier(
            address=address,
            owned=address in parts.fleet.running,
            shard=shard_of(address, self._config.shards),
            open=report.open,
            closing=report.closing,
            sessions=dict(report.sessions),
            last=dict(report.last),
            earned_by=dict(report.earned_by),
            lost_recently=report.lost_recently,
            staked=report.staked,
            stake_upokt=stake.get("amount_upokt"),
            services=tuple(stake.get("services") or ()),
            unstaking_at=int(stake.get("unstake_session_end_height") or 0),
            endpoint_problems=tuple(report.endpoint_problems),
            balance_upokt=report.balance_upokt,
            public_key_on_chain=report.public_key_on_chain,
            days=report.days,
        )

    async def _session(self, request: web.Request) -> web.Response:
        parts, volume = self._opened()
        supplier, session_id = _text(request, "supplier"), _text(request, "session")
        worker = parts.fleet.running.get(supplier)
        tracked = worker.supplier.sessions.get(session_id) if worker is not None else None
        if tracked is not None:
            row = SessionAt(supplier, tracked, parts.suppliers.reports.of(supplier).stage(session_id))
            leaves = await _read(_leaves, volume, [row])
            payments = await _read(volume.audit_reader.payments, supplier, session_id)
            return _json(explain_open(row, leaves[0], self._board.height, payments))
        outcome = await _read(volume.audit_reader.outcome, supplier, session_id)
        if outcome is None:
            raise _refusal(web.HTTPNotFound, "this miner knows no such session")
        return _json(explain_ended(0, outcome))


def _leaves(volume: Volume, rows: Sequence[SessionAt]) -> list[int]:
    """Return the number of relays on the volume of each session that is not sealed."""
    counts = []
    for row in rows:
        file = volume.relay_store.known(row.session.end) if row.session.seal is None else None
        counts.append(file.count(row.supplier, row.session.session_id) if file is not None else 0)
    return counts


async def _read(work: Callable[..., Any], *arguments: object) -> Any:
    """Read from the volume in a thread.

    Raises HTTPServiceUnavailable if it cannot be read now.
    """
    try:
        return await asyncio.to_thread(work, *arguments)
    except sqlite3.Error as error:
        raise _refusal(web.HTTPServiceUnavailable, f"the volume cannot be read: {error}") from error


def _refusal(kind: type[web.HTTPError], text: str) -> web.HTTPError:
    return kind(text=json.dumps({"error": text}), content_type="application/json")


def _text(request: web.Request, name: str) -> str:
    return request.query.get(name, "")[:_LONGEST_TEXT]


def _limit(request: web.Request, maximum: int) -> int:
    text = request.query.get("limit", "")
    return min(maximum, max(1, int(text))) if text.isascii() and text.isdecimal() and len(text) < 9 else maximum


def _json(model: api.StatusModel) -> web.Response:
    return web.Response(text=model.model_dump_json(), content_type="application/json")
