"""Run attacks against a relayer under paying load: `make soak HOSTILE=1`.

The same relays are sent at the same rate without and with each attack. Their p99 may at most double (below 20 ms the
noise of the machine decides), none may be rejected, and memory must return to its level before the attack. Other
programs delay relays as well, so an attack that breaks a rule is measured again. The exit code is 1 if it breaks one in
each of three attempts.
"""

import asyncio
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from benchmarks.hostile import ATTACKS
from benchmarks.load import Measured, Sender, signing_for
from benchmarks.machine import cpu_seconds, resident_mib
from benchmarks.relayer_cost import relayer_pid
from relayctl.local_stack import LocalStack

_NOISE_MS = 20.0
_GROWTH_MIB = 48.0
_ATTEMPTS = 3
_PAGE = Path(__file__).resolve().parent.parent / "docs/security.md"
_BEGIN, _END = "<!-- attacks: begin -->\n", "<!-- attacks: end -->"


@dataclass(frozen=True, slots=True)
class Row:
    """Result of one attack, and its effect on paying relays and on the relayer."""

    attack: str
    answer: str
    failed: int
    quiet_ms: float
    p99_ms: float
    memory: tuple[float, float, float]
    """MiB before, maximum, and afterwards."""
    cpu_cores: float

    @property
    def problem(self) -> str:
        """Return the broken rule, or an empty text."""
        if self.failed:
            return f"{self.failed} paying relays failed"
        if self.p99_ms > max(_NOISE_MS, 2 * self.quiet_ms):
            return "p99 more than twice the quiet one"
        if self.memory[2] > self.memory[0] + _GROWTH_MIB:
            return "memory does not return"
        return ""

    def cells(self) -> tuple[str, ...]:
        """Return the cells of the table."""
        before, peak, after = self.memory
        return (
            self.attack, self.answer, f"{self.quiet_ms:.0f} → {self.p99_ms:.0f} ms",
            f"{before:.0f} → {peak:.0f} → {after:.0f} MiB", f"{self.cpu_cores:.2f}",
        )  # fmt: skip


HEAD = (
    "attack",
    "how its connections ended",
    "p99 of paying relays without → with it",
    "relayer memory before → peak → after",
    "relayer CPU, cores",
)


_P99 = 2  # column


async def _peak_memory(pid: int, ended: asyncio.Event) -> float:
    peak = resident_mib(pid)
    while not ended.is_set():
        await asyncio.sleep(0.2)
        peak = max(peak, resident_mib(pid))
    return peak


async def _paying(stack: LocalStack, http: aiohttp.ClientSession, rate: float, seconds: float) -> tuple[Measured, int]:
    sender = Sender(stack.url("relayer"))
    bodies = await signing_for(stack).bodies(http, int(rate * seconds))
    return await sender.at_rate(bodies, rate), sender.failed


async def _under(name: str, stack: LocalStack, http: aiohttp.ClientSession, rate: float, seconds: float) -> Row:
    pid = relayer_pid(stack)
    quiet, failed_before = await _paying(stack, http, rate, seconds)
    if failed_before:
        raise SystemExit(f"{failed_before} relays failed without an attack: the result would be meaningless")
    memory, used = resident_mib(pid), cpu_seconds(pid)
    ended = asyncio.Event()
    watching = asyncio.create_task(_peak_memory(pid, ended))
    attackers = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.hostile", name, stack.url("relayer"), str(seconds + 2),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    await asyncio.sleep(1.5)
    loaded, failed = await _paying(stack, http, rate, seconds)
    answer = (await attackers.communicate())[0].decode().strip()
    cores = (cpu_seconds(pid) - used) / (seconds + 2)
    await asyncio.sleep(2)
    ended.set()
    peak = await watching
    return Row(name, answer, failed, quiet.ms(0.99), loaded.ms(0.99), (memory, peak, resident_mib(pid)), cores)


async def hostile(stack: LocalStack, seconds: float, rate: float, *, write: bool) -> int:
    """Run all attacks, `seconds` each, and return the exit code.

    `write` puts the table into docs/security.md.
    """
    rows: list[Row] = []
    async with aiohttp.ClientSession() as http:
        for name in ATTACKS:
            for _ in range(_ATTEMPTS):
                row = await _under(name, stack, http, rate, seconds)
                print(" | ".join(row.cells()) + (f"  {row.problem.upper()}" if row.problem else ""), flush=True)
                if not row.problem:
                    break
            rows.append(row)
    if write:
        _write(rows)
    return 1 if any(row.problem for row in rows) else 0


def _write(rows: list[Row]) -> None:
    lines = [HEAD, ("--",) * len(HEAD), *(row.cells() for row in rows)]
    lines = [(*line[:_P99], *line[_P99 + 1 :]) for line in lines]  # it depends on the machine's other load
    table = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    page = _PAGE.read_text(encoding="utf-8")
    table_pattern = re.compile(re.escape(_BEGIN) + ".*" + re.escape(_END), re.DOTALL)
    _PAGE.write_text(table_pattern.sub(lambda _: _BEGIN + table + _END, page), encoding="utf-8")
