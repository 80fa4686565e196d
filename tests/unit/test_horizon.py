"""Up to which session end nothing new is registered."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket.protocol.sessions.windows import SharedParams, Windows
from pocket_miner.sessions.cutoff import SessionCutoff, cutoff_at, cutoff_height

PARAMS = SharedParams()  # sessions of ten blocks, claims from two to six blocks after their end


def at(height, params=PARAMS, seal_after=1):
    async def shared_params(asked):
        assert 0 < asked <= height, "nobody knows the params of later heights"
        return params(asked) if callable(params) else params

    return asyncio.run(cutoff_at(height, seal_after, shared_params))


@pytest.mark.parametrize(
    ("height", "horizon"),
    [
        (1, SessionCutoff(0, 13)),
        (12, SessionCutoff(0, 13)),
        (13, SessionCutoff(10, 23)),
        (22, SessionCutoff(10, 23)),
        (23, SessionCutoff(20, 33)),
    ],
)
def test_a_session_takes_no_first_relay_from_the_height_at_which_others_are_sealed(height, horizon):
    assert at(height) == replace(horizon, height=height)


def test_sessions_of_other_params_follow_one_another():
    short = SharedParams(num_blocks_per_session=4, session_grid_anchor_height=21, session_number_at_anchor=3)
    found = [at(height, lambda asked: short if asked >= 21 else PARAMS).session_end for height in range(22, 36)]
    assert found == [10, 20, 20, 20, 20, 24, 24, 24, 24, 28, 28, 28, 28, 32]


offsets = st.integers(0, 12)
params = st.builds(
    SharedParams,
    num_blocks_per_session=st.integers(1, 60),
    claim_window_open_offset_blocks=offsets,
    claim_window_close_offset_blocks=offsets,
)


@given(params, st.integers(1, 300), offsets)
def test_it_never_falls_and_changes_when_it_says(params, height, seal_after):
    now, then = at(height, params, seal_after), at(height + 1, params, seal_after)
    assert now.changes_at > height
    assert then.session_end >= now.session_end
    assert then == replace(now, height=height + 1) or now.changes_at == height + 1


@given(params, st.integers(1, 300), offsets)
def test_a_session_that_may_still_get_its_first_relay_can_be_sealed_at_the_block_after(params, height, seal_after):
    """It is found at the block after, sealed then, and its claim is in the block after that."""
    windows = Windows.after(params.session_end(height), params)
    due = cutoff_height(windows, seal_after)
    assert windows.session_end <= due <= max(windows.session_end, windows.seal_height(seal_after))
    assert due <= max(windows.session_end, windows.claim_close - 2)
