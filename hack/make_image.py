"""Makes a container image archive from a folder, with no container engine.

    make_image.py ROOTFS REFERENCE... -o image.tar [--entrypoint JSON] [--cmd JSON]
                  [--env NAME=VALUE] [--workdir DIR] [--user UID] [--stop-signal NAME]

The archive has the layout of `docker save` (one layer, one config), which `ctr images import`, `docker load`,
`podman load` and `kind load image-archive` all read. Times are zeroed and owners are root, so that the same folder
always gives the same image id.
"""

import argparse
import hashlib
import io
import json
import os
import sys
import tarfile
from pathlib import Path

_MOUNT_POINTS = frozenset({"proc", "sys", "dev"})


def _clean(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.mtime = 0
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


def write_layer(rootfs: Path, target: Path) -> str:
    """Write the layer and return its SHA-256."""
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        for folder, names, files in os.walk(rootfs):
            names.sort()
            here = Path(folder)
            kept = list(files)
            if here.parent == rootfs and here.name in _MOUNT_POINTS:
                names.clear()
                kept = []
            tar.add(folder, str(here.relative_to(rootfs)), recursive=False, filter=_clean)
            links = [name for name in names if (here / name).is_symlink()]
            for name in sorted(kept + links):
                tar.add(here / name, str((here / name).relative_to(rootfs)), recursive=False, filter=_clean)
    digest = hashlib.sha256()
    with target.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def make_image(
    rootfs: Path, references: list[str], output: Path, run: dict[str, object], environment: list[str]
) -> None:
    """Write the image archive.

    `run` holds Entrypoint, Cmd, WorkingDir and User as in a container's configuration.
    """
    layer_file = output.with_suffix(".layer")
    layer = write_layer(rootfs, layer_file)
    settings = {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", *environment], **run}
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {key: value for key, value in settings.items() if value},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer}"]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "make_image.py"}],
        },
        sort_keys=True,
    ).encode()
    name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = [{"Config": name, "RepoTags": references, "Layers": [f"{layer}/layer.tar"]}]
    with tarfile.open(output, "w") as tar:
        for path, data in ((name, config), ("manifest.json", json.dumps(manifest).encode())):
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        tar.add(layer_file, f"{layer}/layer.tar", filter=_clean)
    layer_file.unlink()


def main() -> int:
    """0 when the archive is written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rootfs", type=Path)
    parser.add_argument("reference", nargs="+")
    parser.add_argument("-o", "--output", required=True, type=Path)
    parser.add_argument("--entrypoint", type=json.loads)
    parser.add_argument("--cmd", type=json.loads)
    parser.add_argument("--env", action="append", default=[])
    parser.add_argument("--workdir", default="")
    parser.add_argument("--user", default="")
    parser.add_argument("--stop-signal", default="")
    options = parser.parse_args()
    run = {
        "Entrypoint": options.entrypoint, "Cmd": options.cmd, "WorkingDir": options.workdir, "User": options.user,
        "StopSignal": options.stop_signal,
    }  # fmt: skip
    make_image(options.rootfs, options.reference, options.output, run, options.env)
    return 0


if __name__ == "__main__":
    sys.exit(main())
