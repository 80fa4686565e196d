"""Right answers of CometBFT's RPC, and every way to put a wrong value into one of their fields."""

import copy

WRONG = [None, 7, -1.5, float("inf"), float("nan"), "", "x", "9" * 5000, [], {}, [None], {"a": None}, True]
STATUS = {
    "node_info": {"network": "pocket", "other": {"tx_index": "on"}},
    "sync_info": {
        "latest_block_height": "12", "latest_block_hash": "AB" * 32, "latest_block_time": "2026-01-01T00:00:00.5Z",
        "earliest_block_height": "1",
    },
}  # fmt: skip
COMMIT = {
    "signed_header": {
        "header": {"height": "12", "time": "2026-01-01T00:00:00.5Z", "chain_id": "pocket"},
        "commit": {"block_id": {"hash": "AB" * 32}},
    }
}


def paths_in(value, before=()):
    yield before
    if isinstance(value, dict):
        for name, part in value.items():
            yield from paths_in(part, (*before, name))


def changed(value, path, new):
    if not path:
        return new
    value = copy.deepcopy(value)
    place = value
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = new
    return value
