"""Show suppliers: stake, keys, funds and earnings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pocket.api.miner_status import DayTotals, MinedSupplier
from pocket_console.snapshot import ClusterSnapshot, ConsoleSnapshot
from pocket_console.views.charts import Chart, earned_by_block, earned_by_day
from pocket_console.views.merged import Merged, Session, summed
from pocket_console.views.paging import Page, page_of
from pocket_console.views.sessions import SessionRow, Tone, row_of
from pocket_console.views.timeline import Axis, axis_of

_SHOWN_SESSIONS: Final = 20
_SHOWN_DAYS: Final = 7


@dataclass(frozen=True, slots=True)
class SupplierFilter:
    """Selects the suppliers that are shown.

    Their address or service contains the text, or they have a problem.
    """

    text: str = ""
    problems: bool = False
    page: int = 1


@dataclass(frozen=True, slots=True)
class SupplierRow:
    """One supplier.

    `keys` counts the relayers that loaded its key, of all that answered.
    """

    address: str
    resource: str
    state: str
    tone: Tone
    stake_upokt: int | None
    balance_upokt: int | None
    services: tuple[str, ...]
    keys: str
    miner: str
    shard: int | None
    open: int
    closing: int
    earned_today: int
    earned_upokt: int
    lost_recently: int
    problems: tuple[str, ...]
    stale: bool


@dataclass(frozen=True, slots=True)
class SuppliersView:
    """A page of suppliers."""

    paging: Page[SupplierRow]
    wanted: SupplierFilter
    total: int
    with_problems: int


@dataclass(frozen=True, slots=True)
class SupplierDetail:
    """One supplier with its earnings over time and its newest sessions."""

    row: SupplierRow
    last: Mapping[str, str]
    earned_by: tuple[tuple[str, int], ...]
    days: tuple[tuple[str, DayTotals], ...]
    by_day: Chart
    by_block: Chart
    sessions: tuple[SessionRow, ...]
    axis: Axis
    conditions: tuple[Mapping[str, Any], ...]


def suppliers_view(snapshot: ConsoleSnapshot, picture: Merged, wanted: SupplierFilter) -> SuppliersView:
    """Return one page of the selected suppliers, those with a problem first."""
    rows = supplier_rows(snapshot, picture)
    chosen = [
        row for row in rows
        if (not wanted.problems or row.problems) and (not wanted.text or _contains(row, wanted.text))
    ]  # fmt: skip
    return SuppliersView(
        page_of(chosen, wanted.page), wanted, len(rows), sum(1 for row in rows if row.problems)
    )  # fmt: skip


def _contains(row: SupplierRow, text: str) -> bool:
    return text in row.address or text in row.resource or text in row.services


def supplier_rows(snapshot: ConsoleSnapshot, picture: Merged) -> list[SupplierRow]:
    """Return all suppliers that a miner or the cluster knows.

    Those with a problem come first.
    """
    declared = _declared(snapshot.cluster)
    loaded = [relayer.state.addresses for relayer in snapshot.relayers if relayer.state is not None]
    addresses = {*picture.suppliers, *declared}
    rows = [
        _row(address, picture, declared.get(address), _keys(address, loaded)) for address in addresses
    ]  # fmt: skip
    return sorted(rows, key=lambda row: (not row.problems, row.address))


def _declared(cluster: ClusterSnapshot | None) -> dict[str, Mapping[str, Any]]:
    rows = cluster.suppliers if cluster is not None else ()
    return {str((row.get("spec") or {}).get("operatorAddress", "")): row for row in rows}


def _keys(address: str, loaded: list[frozenset[str]]) -> str:
    return f"{sum(address in addresses for addresses in loaded)}/{len(loaded)}" if loaded else "–"


def _row(address: str, picture: Merged, resource: Mapping[str, Any] | None, keys: str) -> SupplierRow:
    mined = picture.suppliers.get(address) or MinedSupplier(address=address)
    known = address in picture.suppliers
    problems = _problems(mined, resource, known=known, owned=address in picture.owners)
    state, tone = _state(mined, known=known, owned=address in picture.owners)
    today = picture.days.get(address, {}).get(picture.today)
    return SupplierRow(
        address=address,
        resource=str(((resource or {}).get("metadata") or {}).get("name", "")),
        state=state,
        tone=Tone.BAD if problems and tone is not Tone.QUIET else tone,
        stake_upokt=mined.stake_upokt,
        balance_upokt=mined.balance_upokt,
        services=mined.services,
        keys=keys,
        miner=picture.owners.get(address, ""),
        shard=mined.shard if known else None,
        open=mined.open,
        closing=mined.closing,
        earned_today=today.earned_upokt if today is not None else 0,
        earned_upokt=sum(picture.earned_by.get(address, {}).values()),
        lost_recently=mined.lost_recently,
        problems=problems,
        stale=picture.owners.get(address, "") in picture.stale,
    )


def _state(mined: MinedSupplier, *, known: bool, owned: bool) -> tuple[str, Tone]:
    if not known:
        return "not loaded", Tone.QUIET
    if mined.staked is False:
        return "not staked", Tone.BAD
    if mined.unstaking_at:
        return f"unstaking at {mined.unstaking_at}", Tone.WARN
    if not owned:
        return "no owner", Tone.WARN
    return ("staked", Tone.GOOD) if mined.staked else ("mined", Tone.BUSY)


def _problems(mined: MinedSupplier, resource: Mapping[str, Any] | None, *, known: bool, owned: bool) -> tuple[str, ...]:
    """Return what is wrong with a supplier, the gravest first."""
    problems: list[str] = []
    if known and mined.staked is False:
        problems.append("not staked on chain: its relays cannot be claimed")
    if known and not owned:
        problems.append("no miner that answers mines for it")
    if mined.public_key_on_chain is False:
        problems.append("its public key is not on chain: gateways cannot verify its answers")
    if mined.balance_upokt == 0:
        problems.append("its balance is 0: it cannot pay fees")
    if mined.closing:
        problems.append(f"{mined.closing} sessions owe a claim or proof in the last third of its window")
    if mined.lost_recently:
        problems.append(f"{mined.lost_recently} sessions lost since the last settled one: {mined.last.get('loss', '')}")
    problems += mined.endpoint_problems
    for condition in _conditions(resource):
        if condition.get("type") == "Ready" and condition.get("status") == "False":
            problems.append(str(condition.get("message", "")))
    return tuple(problems)


def _conditions(resource: Mapping[str, Any] | None) -> tuple[Mapping[str, Any], ...]:
    return tuple(((resource or {}).get("status") or {}).get("conditions") or ())


def supplier_detail(snapshot: ConsoleSnapshot, picture: Merged, address: str) -> SupplierDetail | None:
    """Return the page of one supplier, None if it is not known."""
    declared = _declared(snapshot.cluster)
    if address not in picture.suppliers and address not in declared:
        return None
    loaded = [relayer.state.addresses for relayer in snapshot.relayers if relayer.state is not None]
    ended = [session for session in picture.ended if session.supplier == address]
    opened = [session for session in picture.open if session.supplier == address]
    everything: list[Session] = [*opened, *ended]
    shown = everything[:_SHOWN_SESSIONS]
    axis = axis_of(shown, picture.height)
    days = picture.days.get(address, {})
    mined = picture.suppliers.get(address)
    earned = summed({}, picture.earned_by.get(address, {}))
    return SupplierDetail(
        row=_row(address, picture, declared.get(address), _keys(address, loaded)),
        last=mined.last if mined is not None else {},
        earned_by=tuple(sorted(earned.items(), key=lambda row: (-row[1], row[0]))),
        days=tuple(sorted(days.items(), reverse=True)[:_SHOWN_DAYS]),
        by_day=earned_by_day(days, "Earned by day"),
        by_block=earned_by_block(ended, "Earned by block of settlement"),
        sessions=tuple(row_of(session, picture, axis) for session in shown),
        axis=axis,
        conditions=_conditions(declared.get(address)),
    )
