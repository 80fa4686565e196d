"""Which streams a miner reads again once a primary of Redis may hold other data."""

import functools
from types import SimpleNamespace

import pytest

from pocket_miner.suppliers.fleet import SupplierManager
from pocket_miner.suppliers.latest_block import LatestBlock


@pytest.mark.parametrize(("changed", "expected"), [("one", ["owner", "standby"]), ("two", ["other owner"])])
async def test_owners_and_standbys_read_their_streams_again_where_redis_may_hold_others(changed, expected):
    made, begun, woken = SupplierManager(SimpleNamespace(chain=None), LatestBlock(), 30.0), [], []

    def consumer(primary, name):
        return SimpleNamespace(tail=SimpleNamespace(primary=primary), reread=lambda: begun.append(name))

    for name, primary in (("owner", "one"), ("other owner", "two")):
        restarted = functools.partial(begun.append, name)
        supplier = SimpleNamespace(on_redis_restarted=restarted, consumer=consumer(primary, name))
        made._running[name] = SimpleNamespace(supplier=supplier, wake=functools.partial(woken.append, name))
    made._standbys["b"] = SimpleNamespace(consumer=consumer("one", "standby"))
    made.reread({changed})
    assert begun == expected
    assert woken == [name for name in expected if name != "standby"]
