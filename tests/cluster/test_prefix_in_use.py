"""Two RelayMiners with one Redis and one prefix: the second starts nothing."""

from waits import all_well, create, reason

from pocket_operator.resources.kinds import BY_KIND, RELAY_MINERS
from resources import changed, key_secret, relay_miner, supplier


async def test_the_younger_relay_miner_starts_nothing_until_the_older_one_is_gone(api, namespace, operator, nodes):
    redis = {"url": "redis://redis:6379/0"}
    first = relay_miner(namespace, redis=redis)
    await create(api, key_secret(namespace), first, supplier(namespace))
    await all_well(api, namespace, "alice")
    second = changed(relay_miner(namespace, "second", redis=redis), "spec.prefix", f"{namespace}-main")
    elsewhere = changed(relay_miner(namespace, "third"), "spec.prefix", f"{namespace}-main")
    elsewhere = changed(elsewhere, "spec.redis", {"url": "redis://another:6379/0"})
    await create(api, second, elsewhere)
    found = await reason(api, RELAY_MINERS, namespace, "second", "PrefixInUse")
    assert f"belongs to the older RelayMiner {namespace}/main" in found["message"]
    await reason(api, RELAY_MINERS, namespace, "second", "PrefixInUse", "Stalled")
    await reason(api, RELAY_MINERS, namespace, "third", "NoSuppliers")
    assert await api.get_or_none(BY_KIND["Deployment"], namespace, "second-relayer") is None
    assert await api.get_or_none(BY_KIND["Deployment"], namespace, "third-relayer") is not None
    await all_well(api, namespace, "alice")
    await api.delete(RELAY_MINERS, namespace, "main")
    await reason(api, RELAY_MINERS, namespace, "second", "NoSuppliers", seconds=60)
