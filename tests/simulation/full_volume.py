"""What log, relay store and books answer on a volume that is full, and once it has space again.

As a program (argument: an empty folder of a small volume) it fills the volume for real and prints the answers as JSON.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from pocket.redis_store.log_records import WalRecord
from pocket.redis_store.write_ahead_log import WriteAheadLog
from pocket_miner.relay_rows import Leaf
from pocket_miner.storage.audit import Audit
from pocket_miner.storage.outcomes import OutcomeRecord, SessionOutcome
from pocket_miner.storage.relay_store import RelayStore

_BIG = 32 * 1024  # bytes; more than the free part of a page or block
_HEIGHT = 10


def leaf(number: int) -> Leaf:
    return Leaf(b"%032d" % number, b"d" * 32, 1, b"v" * _BIG)


def record(number: int) -> WalRecord:
    return WalRecord("alice", "one", b"header", b"%d" % number + b"r" * _BIG, _HEIGHT)


def outcome(session: str) -> OutcomeRecord:
    return OutcomeRecord("alice", session, SessionOutcome.SETTLED, "settled", "", _HEIGHT, {"note": "x" * _BIG})


def answers(folder: Path, fill: Callable[[], None], free: Callable[[], None]) -> list[str]:
    """Name, then `ok` with what was returned, or the class and text of the error, of each step."""
    found: list[str] = []
    log, relay_store, audit = (
        WriteAheadLog(folder, "log"),
        RelayStore(folder / "mirror"),
        Audit(folder / "audit.sqlite"),
    )

    def step(name: str, work: Callable[[], object]) -> None:
        try:
            found.append(f"{name}: ok {work()}")
        except Exception as error:  # noqa: BLE001 - the error is the answer
            found.append(f"{name}: {type(error).__name__} {error}")

    def write(number: int) -> None:
        step("append to the log", lambda: log.append([record(number)]) and None)
        step(
            "store relays",
            lambda: relay_store.file(_HEIGHT).store("alice", "one", [leaf(number)], 0, f"{number}-0", "i"),
        )
        step("book an outcome", lambda: audit.record(outcome(f"session {number}")))

    def read() -> None:
        step("read the log", lambda: sum(1 for segment in log.segments for _ in segment.read()))
        step("count relays", lambda: relay_store.file(_HEIGHT).count("alice", "one"))
        step("position", lambda: [row.position for row in relay_store.file(_HEIGHT).sessions()])
        step("outcomes", lambda: len(audit.outcomes()))
        step("has space", lambda: shutil.disk_usage(folder).free > 0)

    try:
        relay_store.file(_HEIGHT).add_session("alice", "one", b"header")
        write(1)
        read()
        fill()
        write(2)
        read()
        free()
        write(3)
        read()
    finally:
        log.close()
        relay_store.close()
        audit.close()
    return found


def main() -> int:
    """Exit code 0."""
    folder = Path(sys.argv[1])
    ballast = folder / "ballast"

    def fill() -> None:
        with ballast.open("wb", buffering=0) as file:
            for size in (4096, 1):
                try:
                    while file.write(b"\0" * size):
                        pass
                except OSError:
                    continue

    sys.stdout.write(json.dumps(answers(folder, fill, ballast.unlink)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
