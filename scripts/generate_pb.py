"""Compile the .proto files of pocket.protocol.pb.

With --check, fail if the checked-in modules differ.
"""

import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

SOURCE = Path(__file__).resolve().parent.parent / "core"


def generate(out: Path) -> None:
    """Write *_pb2.py and *_pb2.pyi below `out`."""
    protos = sorted(str(p) for p in (SOURCE / "pocket/protocol/pb").glob("*.proto"))
    include = Path(protoc.__file__).parent / "_proto"
    args = ["protoc", f"-I{SOURCE}", f"-I{include}", f"--python_out={out}", f"--pyi_out={out}", *protos]
    if protoc.main(args) != 0:
        raise SystemExit("protoc refused the .proto files")


def drifted() -> list[str]:
    """Names of checked-in modules that differ from what protoc makes now."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        made = {p.name: p.read_bytes() for p in (Path(folder) / "pocket/protocol/pb").glob("*_pb2.py*")}
    have = {p.name: p.read_bytes() for p in (SOURCE / "pocket/protocol/pb").glob("*_pb2.py*")}
    return sorted(name for name in made.keys() | have.keys() if made.get(name) != have.get(name))


if __name__ == "__main__":
    if "--check" in sys.argv:
        names = drifted()
        print("\n".join(names) or "no drift")
        sys.exit(1 if names else 0)
    generate(SOURCE)
