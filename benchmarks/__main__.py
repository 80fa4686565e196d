"""`make bench`: a table, and benchmarks/results/latest.json."""

import json
import platform
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import idle, miner_cost, operator_cost, parts, redis_cost, relayer_cost, relayer_growth
from benchmarks.growth import Growth
from benchmarks.relayer_cost import CALM
from pocket.protocol.crypto.linear_combination import accelerator
from pocket.protocol.smst.bulk import native

_WIDTH = 180  # of a table that is written to a file

# (what, figure, unit, target of the wheel-only column of the design)
Row = tuple[str, float, str, float | None]


def rows() -> list[Row]:
    """Return all measurements."""
    found: list[Row] = []
    print(f"accelerators: ring signatures {_on(accelerator)}, tries {_on(native)}")
    for size, fast, target in ((2, 0.11, 0.35), (3, 0.16, 0.5), (5, 0.28, 0.85)):
        figure = parts.ring(size) * 1000
        found.append((f"verify a ring of {size}", figure, "ms CPU", target if accelerator is None else fast))
    found.append(("sign a response", parts.ecdsa() * 1000, "ms CPU", None))
    gate, relay_store = parts.miner()
    found.append(("miner: gate and digest, per relay", gate * 1000, "ms CPU", None))
    found.append(("miner: store, per relay", relay_store * 1000, "ms CPU", None))
    found.append(("miner: gate and store, per relay", (gate + relay_store) * 1000, "ms CPU", 0.06))
    for count, target, fast in ((10_000, 0.1, 0.01), (100_000, 1.0, 0.1), (1_000_000, 12.0, 1.3)):
        root, proof = parts.trie(count)
        found.append((f"bulk root of {count:,} leaves", root, "s CPU", target if native is None else fast))
        proof_target = 15.0 if native is None else 0.5
        found.append((f"closest proof of {count:,} leaves", proof, "s CPU", proof_target if count == 10**6 else None))
    found.append(("operator: a reconciliation of 1000 Suppliers with 12 pods", operator_cost.measure(), "s CPU", 0.5))
    cost = redis_cost.measure()
    found.append(
        ("Redis bytes per relay beyond the relay, with the replay guard", cost["bytes_beyond_the_relay"], "B", 50)
    )
    found.append(("the replay guard's part of them", cost["guard_bytes"], "B", None))
    for name in ("commands_per_relay_write", "commands_per_relay_read"):
        found.append((f"Redis {name.replace('_', ' ')}", cost[name], "", None))
    for name in ("redis_cpu_us_write", "redis_cpu_us_charge", "redis_cpu_us_read"):
        found.append((name.replace("_", " "), cost[name], "µs CPU", None))
    for name, figure in miner_cost.measure().items():
        what, unit = name.rsplit(", ", 1)
        target = 0.12 if name == "backlog: CPU per relay, ring verifications" else None
        found.append((f"miner process, {what}", figure, unit, target))
    found += _growth("miner", miner_cost.growth())
    found += _growth("operator", operator_cost.growth())
    found += _growth("Redis", redis_cost.growth())
    found += _growth("relayer", relayer_growth.growth())
    for process, use in idle.measure().items():
        found.append((f"idle {process}: CPU per second", use.cpu_ms, "ms", None))
        found.append((f"idle {process}: resident memory, shared pages once", use.proportional_mib, "MiB", None))
    for workers in (1, 2):
        load = relayer_cost.measure(workers)
        if load["failed"]:
            raise SystemExit(f"{load['failed']} relays failed: the measurements would mean nothing")
        what = f"relayer, {workers} worker{'s' if workers > 1 else ''}"
        target = (0.75 if accelerator is None else 0.45) if workers == 1 else None
        found.append((f"{what}: CPU per relay", load["relayer_cpu_ms_per_relay"], "ms CPU", target))
        if workers == 1:
            unit = "wheel-only ring verifications"
            goal = 2.2 if accelerator is None else 1.6
            found.append((f"{what}: CPU per relay, relative", load["relayer_cpu_rings_per_relay"], unit, goal))
        found.append((f"{what}: relays/s (cores shared)", load["relays_per_second"], "/s", None))
        if workers == 1:
            found.append(
                (f"{what}: added p50 at {CALM:g}/s", load["added_p50_ms"], "ms", 3 if accelerator is None else 2)
            )
            found.append(
                (f"{what}: added p99 at {CALM:g}/s", load["added_p99_ms"], "ms", 15 if accelerator is None else 10)
            )
        found.append((f"{what}: resident memory", load["resident_mib"], "MiB", None))
        found.append((f"{what}: p50 at saturation", load["p50_ms"], "ms", None))
        found.append((f"{what}: p99 at saturation", load["p99_ms"], "ms", None))
    return found


def _growth(what: str, growth: Growth) -> list[Row]:
    return [
        (f"growth of the {what}, {name}: {' / '.join(f'{v:.3g}' for v in values)}", exponent, "exponent", None)
        for name, (values, exponent) in growth.items()
    ]


def _on(library: object | None) -> str:
    return "off" if library is None else "on"


def main() -> None:
    """Measures and prints."""
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH
    table = Table(title=f"{platform.machine()}, Python {platform.python_version()}")
    for column in ("what", "figure", "unit", "target ≤", ""):
        table.add_column(column, justify="left" if column in ("what", "unit") else "right")
    made = rows()
    for what, figure, unit, target in made:
        verdict = "" if target is None else ("ok" if figure <= target else "above")
        table.add_row(what, f"{figure:.3f}", unit, "" if target is None else f"{target:g}", verdict)
    console.print(table)
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / "latest.json").write_text(json.dumps([list(row) for row in made], indent=1))


if __name__ == "__main__":
    main()
