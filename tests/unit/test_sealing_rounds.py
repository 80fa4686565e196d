"""What the owner of a supplier seals at each height of a claim window, whatever fails."""

import pytest

from pocket.protocol.claims.proof_requirement import Claim
from pocket.redis_store.seals import SessionSeal
from pocket.redis_store.store_errors import (
    CommandRejected,
    RedisUnavailable,
    StaleEpoch,
)
from pocket_miner.submission.claims import SealSource
from pocket_miner.submission.leaf_sets import VolumeFallback
from supplier_parts import AWAY, CLOSE, OPEN, PROOF, block, expected_fallback, supplier_miner, tracked


@pytest.mark.parametrize("height", range(OPEN, CLOSE))
async def test_the_later_in_its_window_a_session_is_sealed_the_less_is_required(height):
    early = 2 * (CLOSE - height) > CLOSE - OPEN
    late = expected_fallback(CLOSE - height, CLOSE - OPEN) is VolumeFallback.PARTIAL
    for settled, lacking in ((True, ()), (False, ()), (True, ("s",))):
        miner, parts = supplier_miner(settled=settled, lacking=lacking)
        await miner._seal([tracked()], block(height), PROOF, connected=True)
        waits = early and (not settled or bool(lacking))
        fallback = expected_fallback(CLOSE - height, CLOSE - OPEN)
        history = "history" if early else ""
        assert parts.calls == ([] if waits else [("seal", ["s"], fallback, history, SealSource.STREAM)])
        assert parts.settled_blocks == (height - tracked().header.session_start_block_height if early else 0)
    unconfirmed = tracked("u")
    unconfirmed.terms_confirmed = False
    miner, parts = supplier_miner()
    await miner._seal([unconfirmed, tracked()], block(height), PROOF, connected=True)
    assert parts.calls[0][1] == (["u", "s"] if late else ["s"])
    miner, parts = supplier_miner()
    await miner._seal([unconfirmed], block(height), PROOF, connected=True)
    assert bool(parts.calls) is late


@pytest.mark.parametrize("height", range(OPEN, CLOSE))
@pytest.mark.parametrize("connected", [False, True])
async def test_without_redis_the_volume_is_sealed_late_but_not_what_is_claimed_or_sealed_already(height, connected):
    late = expected_fallback(CLOSE - height, CLOSE - OPEN) is VolumeFallback.PARTIAL
    claimed, sealed = tracked("claimed"), tracked("sealed")
    miner, parts = supplier_miner(claims_on_chain=[Claim("alice", claimed.header, bytes(48))])

    async def confirmed():
        parts.told("confirm")

    miner.confirm = confirmed
    if connected:
        seal = parts.seal_and_claim

        async def fails(group, *given, source=SealSource.STREAM, **options):
            if source is SealSource.STREAM:
                sealed.seal = SessionSeal("sealed", bytes(48), bytes(32), 13, 1)
                raise AWAY
            await seal(group, *given, source=source, **options)

        parts.seal_and_claim = fails
    else:
        sealed.seal = SessionSeal("sealed", bytes(48), bytes(32), 13, 1)
    group = [tracked("free"), claimed, sealed]
    if not late:
        with pytest.raises(RedisUnavailable):
            await miner._seal(group, block(height), PROOF, connected=connected)
        assert parts.calls == []
        return
    await miner._seal(group, block(height), PROOF, connected=connected)
    assert parts.calls == ["confirm", ("claims", 0), "merge", ("seal", ["free"], None, None, SealSource.VOLUME)]
    assert miner._seals_due, "Redis lacks the seals"
    parts.calls.clear()
    parts.errors["confirm"] = StaleEpoch("another owner holds epoch 9", 9)
    with pytest.raises(StaleEpoch):
        await miner._seal(group, block(height), PROOF, connected=connected)
    assert parts.calls == ["confirm"], "a former owner seals nothing"


async def test_a_command_that_redis_rejects_is_tried_session_by_session_before_the_volume_is_sealed():
    miner, parts = supplier_miner(errors={"seal": CommandRejected("another type")})
    with pytest.raises(CommandRejected):
        await miner._seal([tracked("a"), tracked("b")], block(CLOSE - 1), PROOF, connected=True)
    with pytest.raises(CommandRejected):
        await miner._seal([tracked("a")], block(CLOSE - 1), PROOF, connected=True)
    assert [(call[1], call[4]) for call in parts.calls if call[0] == "seal"] == [
        (["a", "b"], SealSource.STREAM), (["a"], SealSource.STREAM), (["a"], SealSource.VOLUME),
    ]  # fmt: skip


@pytest.mark.parametrize("others", [0, 1])
async def test_peers_are_asked_before_a_session_is_sealed_of_which_another_seal_is_known(others):
    session = tracked()
    session.other_seals += [SessionSeal("s", bytes(48), bytes(32), 13, 1)] * others
    miner, parts = supplier_miner()
    await miner._seal([session], block(OPEN), PROOF, connected=True)
    assert parts.names() == ["merge"] * others + ["seal"]
