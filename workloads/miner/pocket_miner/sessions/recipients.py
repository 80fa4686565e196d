"""Amounts by address, bounded: addresses come from the chain, and nobody else bounds how many there are."""

from collections.abc import Mapping

from pocket.api.status import OTHERS


def bounded(amounts: Mapping[str, int], most: int) -> dict[str, int]:
    """Return the largest amounts by address, and the sum of the rest as `others`; at most `most` entries."""
    own = sorted(((address, upokt) for address, upokt in amounts.items() if address != OTHERS), key=_largest_first)
    rest = amounts.get(OTHERS, 0)
    if len(own) + bool(rest) <= most:
        kept = own
    else:
        kept, left = own[: most - 1], own[most - 1 :]
        rest += sum(upokt for _, upokt in left)
    return {**dict(kept), **({OTHERS: rest} if rest else {})}


def added(amounts: Mapping[str, int], more: Mapping[str, int], most: int) -> dict[str, int]:
    """Return sums by address that stay bounded: whoever is among `others` once stays there."""
    known = {address for address in amounts if address != OTHERS}
    free = most - 1 - len(known)
    total = dict(amounts)
    for address, upokt in sorted(more.items(), key=_largest_first):
        place = address
        if address not in known and address != OTHERS:
            if free <= 0:
                place = OTHERS
            else:
                known.add(address)
                free -= 1
        total[place] = total.get(place, 0) + upokt
    return total


def _largest_first(row: tuple[str, int]) -> tuple[int, str]:
    return -row[1], row[0]
