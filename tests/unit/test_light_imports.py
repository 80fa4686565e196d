"""Relayers and miners do not load what few of them need: every module stays in memory for as long as they run."""

import random
import subprocess
import sys

import pytest
from Crypto.Hash import RIPEMD160

from pocket.protocol.crypto.addresses import ripemd160

pytestmark = pytest.mark.processes
SELDOM = {"yaml", "cProfile", "pstats", "Crypto", "cffi", "pycparser", "pocket_operator", "relayctl", "mnemonic"}


@pytest.mark.parametrize("module", ["pocket_relayer.process.worker", "pocket_miner.__main__"])
def test_a_process_does_not_load_what_it_seldom_needs(module):
    code = f"import sys, {module}\nprint(*(name for name in {sorted(SELDOM)} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.split() == []


def test_the_supervisor_does_not_load_what_its_workers_need():
    code = "import sys, pocket_relayer.process.__main__\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    assert not {"aiohttp", "grpc", "redis", "yaml", "google.protobuf"} & set(done.stdout.split())


@pytest.mark.parametrize("available", [True, False])
def test_addresses_are_the_same_with_and_without_ripemd160_in_openssl(available, monkeypatch):
    if not available:

        def missing(*_, **__):
            raise ValueError("unsupported hash type")

        monkeypatch.setattr("pocket.protocol.crypto.addresses.hashlib.new", missing)
    chance = random.Random(1)
    for size in (0, 1, 32, 55, 56, 64, 200):
        data = chance.randbytes(size)
        assert ripemd160(data) == RIPEMD160.new(data).digest()
