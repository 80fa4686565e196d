"""Show the overview in a terminal: the same views as the pages."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from pocket_console.collector import Collector
from pocket_console.formatting import amount, duration, milliseconds, number, percent, rate, short
from pocket_console.snapshot import ConsoleSnapshot
from pocket_console.views.fleet import FleetView, fleet_view
from pocket_console.views.merged import merged
from pocket_console.views.overview import OverviewView, overview_view
from pocket_console.views.services import ServicesView, services_view
from pocket_console.views.sessions import SessionRow, Tone

_STYLES: Final[Mapping[Tone, str]] = {
    Tone.GOOD: "green", Tone.BUSY: "blue", Tone.QUIET: "bright_black", Tone.WARN: "yellow", Tone.BAD: "red",
}  # fmt: skip
_ATTENTION: Final = 5
_WAIT_SECONDS: Final = 5.0


def screen(snapshot: ConsoleSnapshot, now: float) -> Group:
    """Return what a terminal shows of a snapshot."""
    picture = merged(snapshot, now)
    overview = overview_view(snapshot, picture, now)
    parts: list[RenderableType] = [_headline(overview, now - snapshot.taken_at), _money(overview)]
    if overview.attention:
        parts.append(_attention(overview))
    parts += [
        _sessions(overview.deadlines, overview.height),
        _services(services_view(snapshot, picture, now)),
        _fleet(fleet_view(snapshot, picture, now)),
    ]
    return Group(*parts)


def _headline(view: OverviewView, age: float) -> Text:
    block = f"block {number(view.height)}" if view.height else "no block yet"
    seen = f", {duration(view.block_age)} ago" if view.block_age is not None else ""
    return Text(
        f"Pocket relay mining · {block}{seen} · {view.today or 'no day yet'} · read {duration(age)} ago", "bold"
    )


def _money(view: OverviewView) -> Table:
    money = view.money
    table = Table.grid(padding=(0, 4), expand=False)
    lost_style = "red" if money.lost_today else ""
    table.add_row("earned today", "in flight", "at risk", "lost today", style="bright_black")
    table.add_row(
        Text(amount(money.earned_today), "bold green"), Text(amount(money.in_flight), "bold"),
        Text(amount(money.at_risk), "bold yellow" if money.sessions_at_risk else "bold"),
        Text(amount(money.lost_today), f"bold {lost_style}".strip()),
    )  # fmt: skip
    table.add_row(
        f"sessions: {number(money.sessions_today)}", f"sessions: {number(money.open_sessions)}",
        f"sessions: {number(money.sessions_at_risk)}", ", ".join(name for name, _ in money.lost_by) or "-",
        style="bright_black",
    )  # fmt: skip
    return table


def _attention(view: OverviewView) -> Panel:
    rows = [
        Text.assemble((f"{row.what}: ", f"bold {_STYLES[row.tone]}"), row.text) for row in view.attention[:_ATTENTION]
    ]
    more = len(view.attention) + view.more_attention - len(rows)
    if more:
        rows.append(Text(f"and {more} more", "bright_black"))
    return Panel(Group(*rows), title="needs attention", title_align="left", border_style="yellow")


def _table(title: str, columns: Sequence[str], numeric: frozenset[str]) -> Table:
    """Return a table whose last column takes the space that is left."""
    table = Table(title=f"\n{title}", title_justify="left", title_style="bold", box=None, expand=True, pad_edge=False)
    for name in columns:
        last = name == columns[-1]
        table.add_column(
            name, justify="right" if name in numeric else "left", header_style="bright_black", no_wrap=True,
            ratio=1 if last else None, min_width=None if last else len(name),
        )  # fmt: skip
    return table


def _sessions(rows: Iterable[SessionRow], height: int) -> Table:
    columns = ("session", "stage", "service", "supplier", "relays", "value", "due")
    table = _table("Next deadlines", columns, frozenset({"relays", "value"}))
    for row in rows:
        table.add_row(
            short(row.session_id, 8, 0), Text(row.stage, _STYLES[row.tone]), Text(row.service),
            Text(short(row.supplier)), number(row.relays), amount(row.value_upokt),
            Text(row.margin + (" (stale)" if row.stale else "")),
        )  # fmt: skip
    if not table.row_count:
        table.add_row(Text(f"nothing is due at block {number(height)}", "bright_black"))
    return table


def _services(view: ServicesView) -> Table:
    columns = ("service", "relays/s", "served", "rejected", "p50", "p95", "p99", "backends")
    table = _table("Services", columns, frozenset(columns[1:-1]))
    for row in view.rows:
        backends = Text(f"{len(row.unhealthy)} unavailable", "red") if row.unhealthy else Text("available", "green")
        table.add_row(
            Text(row.name), rate(row.per_second), number(row.served), percent(row.rejected_share),
            milliseconds(row.p50), milliseconds(row.p95), milliseconds(row.p99), backends,
        )  # fmt: skip
    return table


def _fleet(view: FleetView) -> Table:
    table = _table("Fleet", ("process", "state", "height", "answered", "details"), frozenset({"height", "answered"}))
    for row in (*view.miners, *view.relayers):
        answered = "never" if row.age is None else f"{duration(row.age)} ago"
        text = row.problems[0] if row.problems else ", ".join(f"{label} {value}" for label, value in row.detail)
        table.add_row(
            Text(f"{row.component} {row.name}"), Text(row.state, _STYLES[row.tone]), number(row.height), answered,
            Text(text),
        )  # fmt: skip
    return table


async def show_once(collector: Collector, console: Console) -> None:
    """Poll twice, so that rates are known, and print the screen."""
    await collector.once()
    await asyncio.sleep(1.0)
    console.print(screen(await collector.once(), collector.now()))


async def show_live(collector: Collector, console: Console) -> None:
    """Show every snapshot until cancelled."""
    seen = 0
    with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while True:
            await collector.wait_newer(seen, _WAIT_SECONDS)
            seen = collector.snapshot.version
            live.update(screen(collector.snapshot, collector.now()), refresh=True)
