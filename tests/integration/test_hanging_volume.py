"""A volume that neither answers nor fails: another miner takes over, as if the process had ended."""

import contextlib
import os
import threading

import pytest
from prometheus_client import REGISTRY

from one_miner import a_miner, codes, until
from pocket_localnet.local_chain import LocalChain
from pocket_localnet.server import serve
from pocket_miner.storage import volume
from pocket_miner.storage.volume_probe import VolumeProbe
from world import World

pytestmark = pytest.mark.redis
SHARDS = 16


class Hang:
    """Makes a volume hang: its probe's file is a FIFO without a reader, and its audit trail is locked."""

    def __init__(self, folder, audit):
        self._fifo, self._audit, self._over = folder / ".probe", audit, threading.Event()

    def __enter__(self):
        self._fifo.unlink(missing_ok=True)
        os.mkfifo(self._fifo)
        held = threading.Event()
        self._holder = threading.Thread(target=self._hold, args=(held,))
        self._holder.start()
        assert held.wait(30)
        return self

    def _hold(self, held):
        with self._audit._lock:
            held.set()
            self._over.wait()

    def __exit__(self, *_):
        self._over.set()
        self._holder.join()
        reader = os.open(self._fifo, os.O_RDONLY | os.O_NONBLOCK)
        self._fifo.unlink()  # who opened it before is released by the reader
        os.close(reader)


@pytest.fixture
def volumes(monkeypatch):
    """Return the volumes that processes open, by folder."""
    found, real = {}, volume._opened

    def opened(folder, unique, *, give_up):
        found[folder] = real(folder, unique, give_up=give_up)
        return found[folder]

    monkeypatch.setattr(volume, "_opened", opened)
    return found


async def test_another_miner_takes_over_from_one_whose_volume_hangs_until_it_answers_again(
    tmp_path, redis_process, volumes
):
    async with contextlib.AsyncExitStack() as stack:
        localnet = await stack.enter_async_context(serve(LocalChain(World().genesis())))
        node, asks = {"grpc": localnet.grpc_url, "rpc": localnet.rpc_url}, {}
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
            ask, _ = await stack.enter_async_context(a_miner(tmp_path / name, redis_process.url, node))
            asks[name] = ask
        for ask in asks.values():
            await until(ask, "/report", lambda _, body: body.get("shards") == SHARDS / 2)
        owner, other = "first", "second"
        if not (await asks[owner]("/report"))[1]["owned"]:
            owner, other = other, owner
        folder = tmp_path / owner / "data"
        with Hang(folder, volumes[folder].audit):
            await until(asks[other], "/report", lambda _, body: body["owned"])
            _, ready = await until(asks[owner], "/ready", lambda status, _: status == 503)
            assert codes(ready) == ["VolumeHangs"]
            assert str(folder) in ready["problem"]
            assert REGISTRY.get_sample_value("pocket_miner_volume_hangs") == 1
            await until(asks[owner], "/report", lambda _, body: not body["owned"])
        await until(asks[owner], "/report", lambda _, body: body["shards"] == SHARDS / 2 and not body["problems"])
        assert REGISTRY.get_sample_value("pocket_miner_volume_hangs") == 0


async def test_a_probe_of_a_volume_that_fails_is_an_answer(tmp_path, monkeypatch):
    class Failing:
        def last_number(self):
            raise OSError("unplugged")

    now = [0.0]
    probe = VolumeProbe(tmp_path / "absent", Failing(), 3.0, lambda: now[0])
    loops = iter([None])

    class Done(Exception):
        pass

    async def pause(_):
        now[0] += 100.0
        if next(loops, Done) is Done:
            raise Done

    monkeypatch.setattr("pocket_miner.storage.volume_probe.sleep_to_tick", pause)
    with pytest.raises(Done):
        await probe.run()
    assert not probe.hangs
