"""The process of tries stays small and starts fast: the first seal after a start waits for it."""

import subprocess
import sys
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from pathlib import Path

import pytest

from pocket_miner.storage import trie_pool
from pocket_miner.storage.trie_pool import SealedSet, TriePool

HEAVY = ("aiohttp", "grpc", "kubernetes", "opentelemetry", "pydantic", "redis", "yaml")


@pytest.mark.processes
def test_the_process_of_tries_loads_no_client():
    script = "import sys, pocket_miner.storage.trie_pool; print([m for m in sys.argv[1:] if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script, *HEAVY], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


class Dead(Executor):
    """A process that died, or one that hangs. No later one of the same pool answers either."""

    def __init__(self, *, hangs):
        self.hangs, self.ended = hangs, False

    def submit(self, *_):
        future = Future()
        if not self.hangs:
            future.set_exception(BrokenProcessPool("out of memory"))
        return future

    def shutdown(self, wait=True, *, cancel_futures=False):
        self.ended = True


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_process_that_died_or_hangs_is_replaced_for_the_next_session(monkeypatch, hangs):
    dead, used = [Dead(hangs=hangs), Dead(hangs=hangs)], []
    waiting = list(dead)

    def start():
        return waiting.pop() if waiting else ThreadPoolExecutor(1, thread_name_prefix="replacement")

    def root(path, *_):
        used.append(threading.current_thread().name)
        return SealedSet(bytes(48), bytes(32), 1)

    monkeypatch.setattr(trie_pool, "compute_root", root)
    with closing(TriePool(start=start, small_seconds=0.05)) as pool:
        for _ in range(2):
            assert (await pool.root(Path("end-1.sqlite"), "alice", "session")).count == 1
    assert [name.startswith("replacement") for name in used] == [False, True], "a thread answered the first time"
    assert [one.ended for one in dead] == [True, True], "the second one at the end"
