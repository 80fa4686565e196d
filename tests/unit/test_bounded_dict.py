"""A dictionary of limited size forgets what cachetools' FIFOCache forgets."""

import random

import pytest
from cachetools import FIFOCache

from pocket.runtime.bounded_dict import BoundedDict


@pytest.mark.parametrize("seed", range(30))
def test_it_holds_what_a_fifo_cache_holds(seed):
    chance = random.Random(seed)
    limit = chance.randrange(1, 8)
    ours, theirs = BoundedDict(limit), FIFOCache(limit)
    for number in range(200):
        key = chance.randrange(12)
        if chance.random() < 0.2:
            assert ours.pop(key, None) == theirs.pop(key, None)
        else:
            ours[key] = theirs[key] = number
        assert dict(ours) == dict(theirs)
        assert [ours.get(key) for key in range(12)] == [theirs.get(key) for key in range(12)]
