"""Memory goes back to the system after a peak, and only then."""

import pytest

from pocket_relayer.limits.memory_trimming import MemoryTrimmer, mmap_large_allocations, system_trim

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("held", "trims"), [([10, 20, 0], 0), ([100, 0], 1), ([100, 80, 0, 0], 1), ([100, 0, 50, 0], 2), ([100, 100], 0)]
)
async def test_memory_is_given_back_once_after_each_large_peak(held, trims):
    trimmed = []
    trimming = MemoryTrimmer(lambda: trimmed.append(True))
    for size in held:
        await trimming.observe(size * MIB)
    assert len(trimmed) == trims


def test_the_systems_allocator_can_be_asked_or_is_left_alone():
    mmap_large_allocations()
    system_trim()()
