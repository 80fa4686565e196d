"""Record a cluster as a release of the operator leaves it, for test_upgrade.py to upgrade from.

Usage: `.venv/bin/python tests/cluster/record_release.py NAME COMMIT` writes tests/cluster/recorded/NAME.json.gz. It
needs a control plane with controllers (hack/kubernetes/prepare). The recorded release 0.1.0 is that of 71480140.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

_TESTS = Path(__file__).parents[1]
sys.path += [str(_TESTS / "support"), str(_TESTS / "cluster")]

from releases import (  # noqa: E402 - after the path is set
    NAMESPACE,
    RECORDED,
    Recording,
    Release,
    prepare,
    resources,
    served,
)
from rest import at_rest  # noqa: E402
from waits import create  # noqa: E402

from kube import assets, kubelet, started  # noqa: E402


async def record(commit: str, folder: Path) -> Recording:
    """Let the release bring about its resources in a new cluster, and record everything once it is at rest."""
    programs = assets()
    if programs is None or not programs[1]:
        sys.exit("needs a control plane with controllers: see hack/kubernetes/prepare")
    (folder / "release").mkdir()
    release = Release.checkout(commit, folder / "release")
    with started(programs[0], folder / "state", controllers=True) as own:
        async with own.api() as api, kubelet(api, NAMESPACE):
            await prepare(own, api, release.definitions())
            operator = release.operator(own, folder).start()
            try:
                await create(api, *resources())
                await served(api)
                await at_rest(api, operator, NAMESPACE)
                return await Recording.take(api, commit, release.definitions())
            finally:
                operator.stop(kill=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        asyncio.run(record(sys.argv[2], Path(temporary))).save(RECORDED / f"{sys.argv[1]}.json.gz")
