"""Bound amounts by address.

The chain does not limit the number of recipients.
"""

from collections.abc import Mapping

from pocket.api.status import OTHERS


def bounded(amounts: Mapping[str, int], limit: int) -> dict[str, int]:
    """Return the largest amounts by address and the sum of the rest as `others`.

    The result has at most `limit` entries.
    """
    own = sorted(((address, upokt) for address, upokt in amounts.items() if address != OTHERS), key=_largest_first)
    rest = amounts.get(OTHERS, 0)
    if len(own) + bool(rest) <= limit:
        largest = own
    else:
        largest, left = own[: limit - 1], own[limit - 1 :]
        rest += sum(upokt for _, upokt in left)
    return {**dict(largest), **({OTHERS: rest} if rest else {})}


def added(amounts: Mapping[str, int], more: Mapping[str, int], limit: int) -> dict[str, int]:
    """Return the sums by address, with at most `limit` entries.

    An address that was counted among `others` once stays there.
    """
    known = {address for address in amounts if address != OTHERS}
    free = limit - 1 - len(known)
    total = dict(amounts)
    for address, upokt in sorted(more.items(), key=_largest_first):
        key = address
        if address not in known and address != OTHERS:
            if free <= 0:
                key = OTHERS
            else:
                known.add(address)
                free -= 1
        total[key] = total.get(key, 0) + upokt
    return total


def _largest_first(row: tuple[str, int]) -> tuple[int, str]:
    return -row[1], row[0]
