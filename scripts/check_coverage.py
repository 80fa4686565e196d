"""Check the branch coverage of each part of the money path alone.

A sum would hide a part that is not covered.

usage: scripts/check_coverage.py [aim]   (`.coverage` is of `make test COVERAGE=1`; aim: every part must reach the aim)
"""

import sys
import tempfile
from pathlib import Path

from coverage import Coverage
from coverage.exceptions import NoDataError

SOURCE = Path(__file__).resolve().parent.parent
PARTS = {
    "relayer": "workloads/relayer/pocket_relayer",
    "miner": "workloads/miner/pocket_miner",
    "redis_store": "core/pocket/redis_store",
    "chain": "core/pocket/chain",
    "coordination": "core/pocket/coordination",
    "protocol": "core/pocket/protocol",
    "operator decisions": "operator/pocket_operator/decide",
}
LEAST = 95.0
GATE = 94.0
"""Minimum coverage of each part, in percent.

The aim is LEAST.
"""


def percent(coverage: Coverage, files: list[str]) -> float:
    """Covered lines and branches of some files together."""
    with tempfile.TemporaryDirectory() as folder:
        return coverage.xml_report(morfs=files, outfile=str(Path(folder) / "coverage.xml"))


def files_of(part: str, measured: set[str]) -> list[str]:
    """Return the measured files of a part."""
    root = str(SOURCE / PARTS[part])
    return [name for name in measured if name.startswith(root) and "/pb/" not in name]


def main(least: float) -> int:
    """Print the coverage of each part.

    Returns 1 if a part is below `least` percent.
    """
    coverage = Coverage(config_file=str(SOURCE / "pyproject.toml"))
    coverage.load()
    measured = set(coverage.get_data().measured_files())
    low = 0
    for part in PARTS:
        try:
            found = percent(coverage, files_of(part, measured))
        except NoDataError:
            found = 0.0
        low += found < least
        print(f"{found:6.1f} %  {part}" + (f"  (below {LEAST:g} %)" if found < LEAST else ""))
    return 1 if low else 0


if __name__ == "__main__":
    sys.exit(main(LEAST if "aim" in sys.argv[1:] else GATE))
