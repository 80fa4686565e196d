"""`relayctl top` shows the same numbers as the pages."""

import io

from rich.console import Console

from console_miner import StatusServer, collected
from console_snapshots import ALICE, NOW, lost, miner, opened, relayer, silent, snapshot, supplier
from pocket_console.snapshot import UnhealthyEndpoint
from pocket_console.terminal import screen, show_once


def shown(shot, width=140):
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(screen(shot, NOW))
    return out.getvalue()


def test_the_screen_has_money_deadlines_services_and_fleet():
    endpoint = UnhealthyEndpoint("eth", "json_rpc", "http://b:1", "refused")
    rows = (opened(1, closing=True), opened(2, due=None, owes=""))
    text = shown(
        snapshot(
            miners=(miner(sessions=rows, outcomes=(lost(3),)), silent()),
            relayers=(relayer(unhealthy=(endpoint,)),),
        )
    )  # fmt: skip
    for wanted in ("block 112", "200 upokt", "840 upokt", "420 upokt", "claim in 4 blocks", "10.0", "1 unavailable",
                   "miner miner-0", "never answered", "needs attention", "does not answer: no connection"):  # fmt: skip
        assert wanted in text, wanted


def test_texts_of_miners_are_no_markup():
    text = shown(snapshot(miners=(miner(sessions=(opened(1, service_id="[red]x[/red]"),)),)))
    assert "[red]x[/red]" in text


def test_an_empty_fleet_is_shown_as_such():
    text = shown(snapshot(miners=(), relayers=()))
    assert "no block yet" in text
    assert "nothing is due" in text


async def test_one_screen_is_printed_with_rates():
    out = io.StringIO()
    async with collected(StatusServer([opened()], suppliers=[supplier(ALICE)])) as collector:
        await show_once(collector, Console(file=out, width=140, color_system=None))
    assert "claim in 4 blocks" in out.getvalue()
    assert "0.0" in out.getvalue()
