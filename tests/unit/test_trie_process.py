"""The process of tries stays small and starts fast: the first seal after a start waits for it."""

import subprocess
import sys

import pytest

HEAVY = ("aiohttp", "grpc", "kubernetes", "opentelemetry", "pydantic", "redis", "yaml")


@pytest.mark.processes
def test_the_process_of_tries_loads_no_client():
    script = "import sys, pocket_miner.storage.trie_pool; print([m for m in sys.argv[1:] if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script, *HEAVY], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
