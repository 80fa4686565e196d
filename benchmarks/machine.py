"""Read CPU, memory and descriptors of processes from the kernel."""

import os
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def descendants(parent: int) -> list[int]:
    """Return a process and all its descendants."""
    found = [parent]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == parent:
                found += descendants(int(entry.name))
    return found


def cpu_seconds(parent: int) -> float:
    """User and system time of a process and its children so far."""
    total = 0.0
    for pid in descendants(parent):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += (int(fields[11]) + int(fields[12])) / TICKS
    return total


def resident_mib(parent: int) -> float:
    """Resident memory of a process and its children."""
    return sum(map(resident_mib_of, descendants(parent)))


def resident_mib_of(pid: int) -> float:
    """Resident memory of one process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def proportional_mib(parent: int) -> float:
    """Return the resident memory of a process and its children in MiB.

    A page that several processes share counts once.
    """
    return sum(map(proportional_mib_of, descendants(parent)))


def proportional_mib_of(pid: int) -> float:
    """Resident memory of one process, with its part of shared pages."""
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(row.split()[1]) for row in rows if row.startswith("Pss:")) / 1024


def descriptors(parent: int) -> int:
    """Open files and sockets of a process and its children."""
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in descendants(parent))
