"""Write numbers, amounts and durations as people read them."""

from typing import Final

UPOKT_PER_POKT: Final = 1_000_000
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


def number(value: float | None) -> str:
    """Return a number with separators, a dash for None."""
    if value is None:
        return "–"
    if isinstance(value, int) or value == int(value):
        return f"{int(value):,}"
    return f"{value:,.1f}"


def amount(upokt: float | None) -> str:
    """Return an amount in upokt, or in POKT from one POKT on."""
    if upokt is None:
        return "–"
    if abs(upokt) < UPOKT_PER_POKT:
        return f"{int(upokt):,} upokt"
    return f"{upokt / UPOKT_PER_POKT:,.3f} POKT"


def rate(per_second: float | None) -> str:
    """Return a rate with one decimal, a dash for None."""
    return "–" if per_second is None else f"{per_second:,.1f}"


def duration(seconds: float | None) -> str:
    """Return a duration with one or two units, a dash for None."""
    if seconds is None:
        return "–"
    rounded = int(seconds)
    if rounded < 60:
        return f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60} min"
    if rounded < 86_400:
        return f"{rounded // 3600} h {rounded % 3600 // 60} min"
    return f"{rounded // 86_400} d {rounded % 86_400 // 3600} h"


def milliseconds(seconds: float | None) -> str:
    """Return a latency in milliseconds, a dash for None."""
    if seconds is None:
        return "–"
    value = seconds * 1000
    return f"{value:.1f} ms" if value < 100 else f"{value:,.0f} ms"


def size(count: float | None) -> str:
    """Return a size in bytes with a binary unit."""
    if count is None:
        return "–"
    value, unit = float(count), _UNITS[0]
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            break
        value /= 1024
    return f"{value:,.0f} {unit}" if unit == _UNITS[0] else f"{value:,.1f} {unit}"


def percent(share: float | None) -> str:
    """Return a share of one in percent, a dash for None."""
    if share is None:
        return "–"
    return f"{share * 100:.0f} %" if share in (0, 1) or share >= 0.1 else f"{share * 100:.1f} %"


def short(text: str, head: int = 10, tail: int = 4) -> str:
    """Return a long address or id with its middle left out."""
    return text if len(text) <= head + tail + 1 else f"{text[:head]}…{text[len(text) - tail :]}"
