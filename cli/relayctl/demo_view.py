"""The demo's live view: a table on a terminal, plain lines elsewhere."""

import asyncio
import contextlib
from collections import Counter
from typing import Any

import aiohttp
from rich.console import Console
from rich.live import Live
from rich.table import Table

from relayctl.accounting import Accounting
from relayctl.local_stack import LocalStack

_TOTALS = {
    "mined": "pocket_miner_relays_stored_total{",
    "claims": 'pocket_miner_claims_total{result="sent"',
    "proofs": 'pocket_miner_proofs_total{result="sent"',
}


class DemoView:
    """Shows blocks, relays, sessions by stage, settlements and earnings."""

    def __init__(self, console: Console, accounting: Accounting, stack: LocalStack) -> None:
        self._console = console
        self._accounting = accounting
        self._stack = stack
        self._stages: Counter[str] = Counter()
        self._seen: dict[tuple[str, str], int] = {}
        self._before: Counter[str] = Counter()
        self._live: Live | None = None
        self._last = ""

    async def run(self, http: aiohttp.ClientSession) -> None:
        """Refresh until cancelled."""
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=4)
            self._live.start()
        try:
            while True:
                self._stages.clear()
                for name in self._stack.miner_names:
                    with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError, ValueError):
                        await self._ask_miner(http, name)
                self._show()
                await asyncio.sleep(0.5 if self._live else 2.0)
        finally:
            self.finish()

    async def _ask_miner(self, http: aiohttp.ClientSession, miner: str) -> None:
        url = self._stack.url(f"{miner}-admin") + "/metrics"
        async with http.get(url, timeout=aiohttp.ClientTimeout(total=1)) as answer:
            text = await answer.text()
        totals: Counter[str] = Counter()
        for line in text.splitlines():
            name, _, value = line.rpartition(" ")
            if name.startswith("pocket_miner_sessions{"):
                self._stages[name.split('"')[1]] += int(float(value))
            for total, prefix in _TOTALS.items():
                if name.startswith(prefix):
                    totals[total] += int(float(value))
        for total in _TOTALS:
            before = self._seen.get((miner, total), 0)
            if totals[total] < before:  # the miner was restarted and counts from zero again
                self._before[total] += before
            self._seen[miner, total] = totals[total]

    def _total(self, total: str) -> int:
        return self._before[total] + sum(number for (_, name), number in self._seen.items() if name == total)

    def finish(self) -> None:
        """Stop the live table."""
        if self._live is not None:
            self._live.update(self._table())
            self._live.stop()
            self._live = None

    def _numbers(self) -> dict[str, Any]:
        accounting = self._accounting
        paid = accounting.with_acknowledged()
        return {
            "block": accounting.height,
            "relays acknowledged": sum(len(row.acknowledged) for row in paid),
            "relays rejected": sum(row.rejected for row in accounting.pairs.values()),
            **{total: self._total(total) for total in _TOTALS},
            "sessions": ", ".join(f"{n} {stage}" for stage, n in self._stages.items() if n) or "-",
            "settled": f"{len(accounting.settled)} of {len(paid)}",
            "earned": f"{sum(row.earned_upokt for row in accounting.settled)} of "
            f"{sum(row.expected_upokt for row in paid)} upokt",
        }

    def _table(self) -> Table:
        table = Table(title="Pocket relay mining", show_header=False, min_width=60)
        for name, value in self._numbers().items():
            table.add_row(name, str(value))
        if self._accounting.kills:
            table.add_row("killed", ", ".join(f"{name} {n}" for name, n in self._accounting.kills.items()))
        return table

    def _show(self) -> None:
        if self._live is not None:
            self._live.update(self._table())
            return
        line = " | ".join(f"{name}: {value}" for name, value in self._numbers().items())
        if line != self._last:
            self._console.print(line, soft_wrap=True)
            self._last = line
