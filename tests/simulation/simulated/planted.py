"""The judge is judged: faults planted in the product, one at a time, each of which must show in some life.

A planted fault replaces text of a module as it is imported; no file changes. Usage:
python -m simulated.planted [--seeds 200] [--only TEXT] [--table FILE] [--jobs N]
"""

import argparse
import importlib.machinery
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from simulated.draw import draw, scenes
from simulated.plants import PLANTS, Plant

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parents[1]
_NOTHING = 0


def planted(fault: Plant) -> dict[Path, str]:
    """Return the sources of a fault's modules with its texts replaced.

    Raises ValueError if a text does not occur.
    """
    broken: dict[Path, str] = {}
    for file, old, new in fault.edits:
        place = ROOT / file
        source = broken.get(place) or place.read_text(encoding="utf-8")
        if source.count(old) != 1:
            raise ValueError(f"{fault.name}: {file} does not hold {old!r} once")
        broken[place] = source.replace(old, new)
    return broken


def plant(fault: Plant) -> None:
    """Compile a fault's modules with its texts replaced.

    Raises RuntimeError if one is imported already.
    """
    broken = planted(fault)
    imported = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    for place in broken:
        if str(place) in imported:
            raise RuntimeError(f"{place} is imported already: the fault would not be in it")
    whole = importlib.machinery.SourceFileLoader.get_code

    def get_code(self: importlib.machinery.SourceFileLoader, name: str) -> object:
        source = broken.get(Path(self.path).resolve())
        return whole(self, name) if source is None else compile(source, self.path, "exec", dont_inherit=True)

    importlib.machinery.SourceFileLoader.get_code = get_code  # type: ignore[method-assign]


def search(name: str, seeds: list[int]) -> None:
    """Run lives with a planted fault until one fails, and print the result as JSON."""
    fault = next(row for row in PLANTS if row.name == name)
    plant(fault)
    from simulated.life import live
    from simulated.logs import quiet

    quiet()
    for number, seed in enumerate(seeds, 1):
        found = live(seed, hasty=True)
        if found.problems or found.errors:
            print(json.dumps({"lives": number, "seed": seed, "problem": (found.problems or found.errors)[0]}))
            return
    print(json.dumps({"lives": _NOTHING, "seed": 0, "problem": "", "tried": len(seeds)}))


def _met(fault: Plant, seed: int) -> tuple[int, int]:
    """Return how well a life's scenes, and all its faults, meet the kinds that can show a planted fault."""
    wanted = set(fault.kinds)
    best = max((len(scene & wanted) - len(scene - wanted) for scene in scenes(seed) if scene & wanted), default=-9)
    return best, len({drawn.kind for drawn in draw(seed)} & wanted)


def _searched(fault: Plant, seeds: int, lives: int) -> dict[str, object]:
    order = sorted(range(1, seeds + 1), key=lambda seed: (_met(fault, seed), -seed), reverse=True)
    command = [sys.executable, "-m", "simulated.planted", "--search", fault.name, "--order", json.dumps(order[:lives])]
    paths = os.pathsep.join(str(p) for p in (HERE, ROOT / "tests/support", ROOT / "tests/vectors"))
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    try:
        found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        found = {"lives": -1, "seed": 0, "problem": done.stderr[-300:], "tried": 0}
    return found


BEGIN, END = "<!-- begin planted faults -->", "<!-- end planted faults -->"
_HEAD = ["| planted fault | lives until it was found | seed | what was seen |", "|--|--|--|--|"]


def row_of(fault: Plant, found: dict[str, object]) -> str:
    """Return the table row of a planted fault: the number of lives and the one that showed it."""
    if int(str(found["lives"])) <= 0:
        return f"| {fault.name} | **not found** in {found['tried']} |  |  |"
    problem = str(found["problem"]).replace("|", "/").replace("\n", " ")[:90].strip()
    return f"| {fault.name} | {found['lives']} | {found['seed']} | {problem} |"


def rows_of(text: str) -> dict[str, str]:
    """Return the table rows of a document by the planted fault's name."""
    lines = text.partition(BEGIN)[2].partition(END)[0].splitlines()
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines if line.startswith("| ")}


def with_rows(text: str, new: dict[str, str]) -> str:
    """Return the document with these table rows replaced.

    Rows of faults that no longer exist are removed.
    """
    rows = {**rows_of(text), **new}
    lines = [*_HEAD, *(rows[fault.name] for fault in PLANTS if fault.name in rows)]
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{rest.partition(END)[2]}"


def main() -> int:
    """Exit code 1 where a planted fault was not found."""
    parser = argparse.ArgumentParser(prog="simulated.planted", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--lives", type=int, default=0, help="most lives for each fault, the likeliest first")
    parser.add_argument("--only", default="")
    parser.add_argument("--table", type=Path, help="a document whose table is brought up to date")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--search", help=argparse.SUPPRESS)
    parser.add_argument("--order", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.search:
        search(options.search, json.loads(options.order))
        return 0
    chosen = [fault for fault in PLANTS if options.only in fault.name]
    begun = time.monotonic()

    def one(fault: Plant) -> tuple[Plant, dict[str, object]]:
        found = _searched(fault, options.seeds, options.lives or options.seeds)
        print(f"{time.monotonic() - begun:6.0f} s  {fault.name}: {found}", flush=True)
        return fault, found

    with ThreadPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(one, chosen))
    missed = [fault.name for fault, found in rows if int(str(found["lives"])) <= 0]
    print(f"{len(rows) - len(missed)} of {len(rows)} planted faults were found")
    print("\n".join(f"not found: {name}" for name in missed))
    if options.table:
        text = options.table.read_text(encoding="utf-8")
        made = with_rows(text, {fault.name: row_of(fault, found) for fault, found in rows})
        options.table.write_text(made, encoding="utf-8")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
