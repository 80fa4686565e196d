"""A prefix of Redis keys belongs to the oldest RelayMiner that uses it, whatever the operator has read so far."""

import base64

import pytest

from pocket.kube.api_client import KubeError
from pocket_operator.controller.prefix_owners import PrefixOwners
from pocket_operator.controller.secrets import SecretReader
from pocket_operator.decide.object_cache import ObjectCache
from pocket_operator.decide.snapshot import SecretView
from resources import relay_miner

URL = "redis://redis:6379/0"


class SecretApi:
    """Secrets by namespace and name."""

    def __init__(self, **urls):
        self.urls, self.refused = urls, None

    async def get_or_none(self, _, namespace, name):
        if self.refused is not None:
            raise self.refused
        url = self.urls.get(namespace)
        return None if url is None else {"data": {"url": base64.b64encode(url.encode()).decode()}}


def of_secret(namespace, created):
    redis = {"urlSecretRef": {"name": "r", "key": "url"}}
    found = relay_miner(namespace, prefix="shared")
    found["spec"]["redis"] = redis
    found["metadata"] |= {"uid": namespace, "creationTimestamp": created}
    return found


@pytest.fixture
def older():
    return of_secret("older", "2026-01-01T00:00:00Z")


@pytest.fixture
def younger():
    return of_secret("younger", "2026-01-02T00:00:00Z")


def owners(api, *relay_miners):
    cache = ObjectCache()
    for one in relay_miners:
        cache.put("RelayMiner", one)
    reader = SecretReader(api, lambda: 100.0)
    return PrefixOwners(cache, reader), reader


OWN = {"r": SecretView({"url": URL})}


async def test_an_older_one_whose_secret_was_never_read_is_the_owner(older, younger):
    found, reader = owners(SecretApi(older=URL), older, younger)
    assert await found.other(younger, OWN) == "older/main"
    assert await found.other(older, OWN) == ""
    assert reader._known == {}, "the URL is kept nowhere"


@pytest.mark.parametrize("urls", [{}, {"older": "redis://another:6379/0"}])
async def test_one_without_a_redis_or_with_another_owns_nothing(older, younger, urls):
    assert await owners(SecretApi(**urls), older, younger)[0].other(younger, OWN) == ""


async def test_without_an_answer_nothing_is_concluded(older, younger):
    api = SecretApi(older=URL)
    api.refused = KubeError("no answer")
    with pytest.raises(KubeError, match="no answer"):
        await owners(api, older, younger)[0].other(younger, OWN)
