"""A primary that no Sentinel knows is named with service and addresses, without parts of the client."""

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from pocket.redis_store.sentinel import PrimaryResolver, SentinelUrl
from servers import free_port


async def test_sentinels_without_an_answer_are_named():
    port = free_port()
    url = SentinelUrl.parse(f"redis+sentinel://user:s3cret@127.0.0.1:{port}/mymaster")
    with pytest.raises(RedisConnectionError) as raised:
        await PrimaryResolver(url, 1.0).address()
    expected = f"no Sentinel of 127.0.0.1:{port} answered with a primary for 'mymaster'"
    assert str(raised.value) == expected
