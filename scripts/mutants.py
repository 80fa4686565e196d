"""Break one line of the money path at a time and check that the named test fails.

A mutant that survives means that a change of this line would go unnoticed. The list (mutant_list.py) is seeded by hand
with the mistakes that cost money; extend it with every bug that slipped through. JOBS mutants are tried at a time, as
many as there are processors by default.
"""

import contextlib
import os
import queue
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from mutant_list import MUTANTS, Mutant
from warm_tests import WarmTests

M = TypeVar("M")
R = TypeVar("R")
ROOT = Path(__file__).resolve().parent.parent
SOURCES = ["core", "operator", "workloads/relayer", "workloads/miner", "workloads/localnet", "cli"]
SECONDS = 120
TESTS_FAILED, NOT_COLLECTED = 1, 2  # pytest's exit codes


class Verdict(StrEnum):
    """Result for a mutant.

    Only KILLED is good.
    """

    KILLED = "killed"
    SURVIVED = "SURVIVED"
    TIMED_OUT = "TIMED OUT"
    FAULTY = "FAULTY"


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of the sources, and the program that tests it."""

    folder: Path
    tests: WarmTests


def judged(mutant: Mutant, copy: Copy) -> tuple[Verdict, str]:
    """Return the verdict, and why it is not KILLED."""
    target = copy.folder / mutant.file
    original = target.read_text(encoding="utf-8")
    if original.count(mutant.old) < 1:
        return Verdict.FAULTY, "the line to break is gone: update the list"
    target.write_text(original.replace(mutant.old, mutant.new, 1), encoding="utf-8")
    try:
        return _tested(mutant.test, copy.tests)
    finally:
        target.write_text(original, encoding="utf-8")


def _tested(test: str, tests: WarmTests) -> tuple[Verdict, str]:
    code, output = tests.run([test], SECONDS)
    if code is None:
        return Verdict.TIMED_OUT, f"no verdict within {SECONDS} s: let the test fail where it now waits"
    if code == TESTS_FAILED:
        return Verdict.KILLED, ""
    if code == 0:
        return Verdict.SURVIVED, "no test failed"
    return Verdict.FAULTY, f"pytest ended with {code}: {output[-300:]}"


@contextlib.contextmanager
def judging(judge: Callable[[M, Copy], R], jobs: int) -> Iterator[Callable[[Sequence[M]], Iterator[R]]]:
    """Judge mutants side by side, each on its own copy of the sources.

    Results come in the mutants' order.
    """
    copies: queue.SimpleQueue[Copy] = queue.SimpleQueue()

    def judged_on_a_copy(mutant: M) -> R:
        copy = copies.get()
        try:
            return judge(mutant, copy)
        finally:
            copies.put(copy)

    with (
        tempfile.TemporaryDirectory(prefix="mutants-") as folder,
        contextlib.ExitStack() as programs,
        ThreadPoolExecutor(jobs) as pool,
    ):
        for job in range(jobs):
            copy = Path(folder, str(job))
            for source in SOURCES:
                shutil.copytree(ROOT / source, copy / source, ignore=shutil.ignore_patterns("*.egg-info"))
            tests = programs.enter_context(contextlib.closing(WarmTests([copy / source for source in SOURCES])))
            copies.put(Copy(copy, tests))
        yield lambda mutants: pool.map(judged_on_a_copy, mutants)


def main() -> int:
    """Return exit code 1 unless every mutant is killed.

    ONLY=<text> tries those whose file or test holds the text.
    """
    chosen = [mutant for mutant in MUTANTS if os.environ.get("ONLY", "") in f"{mutant.file} {mutant.test}"]
    jobs = int(os.environ.get("JOBS") or os.cpu_count() or 1)
    counts: Counter[Verdict] = Counter()
    with judging(judged, jobs) as results:
        for number, (mutant, (verdict, why)) in enumerate(zip(chosen, results(chosen), strict=True), start=1):
            counts[verdict] += 1
            print(f"{number:2} {verdict:9} {mutant.file.rsplit('/', 1)[1]}: {mutant.old[:60]!r}", flush=True)
            if why:
                print(f"   {why}\n   expected to fail: {mutant.test}")
    print(f"{len(chosen)} mutants: {', '.join(f'{number} {verdict}' for verdict, number in counts.items())}")
    return 0 if counts.total() == counts[Verdict.KILLED] else 1


if __name__ == "__main__":
    sys.exit(main())
