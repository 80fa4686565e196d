"""The limit of open files of a worker, and how many client connections it leaves."""

import resource

import pytest
from structlog.testing import capture_logs

from pocket.api.relayminer import ConnectionLimits
from pocket_relayer.process.open_files import raise_limit, within_open_files


@pytest.mark.parametrize(("open_files", "total", "per_address"), [
    (524_288, 10_000, 2_500), (12_048, 10_000, 2_500), (10_000, 7_952, 1_988), (1024, 512, 128), (64, 32, 8),
])  # fmt: skip
def test_connections_leave_open_files_for_backends_and_redis(open_files, total, per_address):
    with capture_logs() as logs:
        found = within_open_files(ConnectionLimits(), open_files)
    assert (found.total, found.per_address) == (total, per_address)
    assert bool(logs) == (total < 10_000)


def test_a_worker_raises_its_soft_limit_to_the_hard_one():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1_048_576 if hard == resource.RLIM_INFINITY else min(hard, 1_048_576)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted // 2, hard))
        assert raise_limit() == wanted
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (wanted, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
