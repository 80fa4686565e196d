"""Run attacks against a relayer under paying load: `make soak HOSTILE=1`.

Two relayers get paying relays at the same rate and at the same time, and one of them is attacked. Other programs and
the attackers delay both, so the other one shows what the machine does. The attacked one's p99 may at most double (below
20 ms the noise of the machine decides), none of its relays may be rejected, and its memory must return to its level
before the attack. An attack that breaks a rule is measured again. The exit code is 1 if it breaks one in each of three
attempts.
"""

import asyncio
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

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
    last_failure: str
    quiet_ms: float
    """p99 of the relayer that is not attacked, at the same time."""
    p99_ms: float
    memory: tuple[float, float, float]
    """MiB before, maximum, and afterwards."""
    cpu_cores: float

    @property
    def problem(self) -> str:
        """Return the broken rule, or an empty text."""
        if self.failed:
            return f"{self.failed} paying relays failed, the last with {self.last_failure}"
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


@dataclass(frozen=True, slots=True)
class Stand:
    """The attacked relayer, a second one, and the load of paying relays on both."""

    attacked: LocalStack
    control: LocalStack
    seconds: float
    rate: float
    seen: Path
    """File for a served relay that attackers saw."""

    async def bodies(self, http: aiohttp.ClientSession) -> tuple[list[bytes], list[bytes]]:
        """Return the relays for both."""
        number = int(self.rate * self.seconds)
        attacked, control = (signing_for(stack) for stack in (self.attacked, self.control))
        return await attacked.bodies(http, number), await control.bodies(http, number)

    async def pay(self, bodies: tuple[list[bytes], list[bytes]]) -> tuple[Measured, Measured]:
        """Send the relays to both at the same time."""
        senders = [Sender(stack.url("relayer")) for stack in (self.attacked, self.control)]
        attacked, control = await asyncio.gather(
            *(sender.at_rate(part, self.rate) for sender, part in zip(senders, bodies, strict=True))
        )
        return attacked, control


async def _under(name: str, stand: Stand, http: aiohttp.ClientSession) -> Row:
    url, pid = stand.attacked.url("relayer"), relayer_pid(stand.attacked)
    served, *_ = first = await signing_for(stand.attacked).bodies(http, 1)
    if (await Sender(url).at_once(first, 1)).failed:
        raise SystemExit("a relay failed without an attack: the result would be meaningless")
    await asyncio.to_thread(stand.seen.write_bytes, served)
    bodies = await stand.bodies(http)
    memory, used = resident_mib(pid), cpu_seconds(pid)
    ended = asyncio.Event()
    watching = asyncio.create_task(_peak_memory(pid, ended))
    attackers = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.hostile", name, url, str(stand.seconds + 2), str(stand.seen),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    await asyncio.sleep(1.5)
    loaded, quiet = await stand.pay(bodies)
    answer = (await attackers.communicate())[0].decode().strip()
    cores = (cpu_seconds(pid) - used) / (stand.seconds + 2)
    await asyncio.sleep(2)
    ended.set()
    peak = await watching
    failed = max(0, loaded.failed - quiet.failed)
    memory_mib = (memory, peak, resident_mib(pid))
    return Row(name, answer, failed, loaded.last_failure, quiet.ms(0.99), loaded.ms(0.99), memory_mib, cores)


async def _run_attack(name: str, stand: Stand, http: aiohttp.ClientSession) -> Row:
    """Run an attack, again if it breaks a rule."""
    for _ in range(_ATTEMPTS):
        row = await _under(name, stand, http)
        print(" | ".join(row.cells()) + (f"  {row.problem.upper()}" if row.problem else ""), flush=True)
        if not row.problem:
            break
    return row


async def hostile(
    attacked: LocalStack, control: LocalStack, names: Sequence[str], seconds: float, rate: float, *, write: bool
) -> int:
    """Run attacks, `seconds` each, and return the exit code.

    `write` puts their table into docs/security.md.
    """
    with tempfile.TemporaryDirectory() as folder:
        stand = Stand(attacked, control, seconds, rate, Path(folder) / "relay")
        async with aiohttp.ClientSession() as http:
            rows = [await _run_attack(name, stand, http) for name in names]
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
