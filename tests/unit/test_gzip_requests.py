"""Gzip bodies of requests: small ones wait for nothing, and the addresses of large ones take turns."""

import asyncio
import gzip
import random

import pytest

from pocket_relayer.limits.memory_budget import MemoryBudget
from pocket_relayer.limits.rejection import Rejected, RejectionReason
from pocket_relayer.transports.request_bodies import GzipRequestDecoder

MIB = 1024 * 1024
BOMB = gzip.compress(bytes(11 * MIB), 9)
RELAY = random.Random(7).randbytes(3000)
LARGE = random.Random(8).randbytes(100_000)


def decoder_and_budget():
    return GzipRequestDecoder(60.0), MemoryBudget(lambda: 0.0, 1024 * MIB)


def reserved(budget, address):
    return budget.connection(address).reserve()


async def test_a_small_body_does_not_wait_for_bombs():
    decoder, budget = decoder_and_budget()
    bombs = [asyncio.create_task(decoder.decode(BOMB, 10 * MIB, reserved(budget, "stranger"))) for _ in range(20)]
    await asyncio.sleep(0)
    reservation = reserved(budget, "stranger")
    decoding = decoder.decode(gzip.compress(RELAY), 10 * MIB, reservation)
    with pytest.raises(StopIteration) as ended:
        decoding.send(None)
    assert (ended.value.value, reservation.size) == (RELAY, len(RELAY))
    results = await asyncio.gather(*bombs, return_exceptions=True)
    assert {error.reason for error in results} == {RejectionReason.BODY_TOO_LARGE}


async def test_bombs_of_one_address_are_limited_and_delay_large_bodies_of_another_by_one_each():
    decoder, budget = decoder_and_budget()
    ended = []

    async def decode(address, body):
        try:
            await decoder.decode(body, 10 * MIB, reserved(budget, address))
            ended.append(address)
        except Rejected as rejected:
            ended.append(rejected.reason)

    async with asyncio.TaskGroup() as group:
        for _ in range(100):
            group.create_task(decode("stranger", BOMB))
        await asyncio.sleep(0)
        for _ in range(2):
            group.create_task(decode("honest", gzip.compress(LARGE)))
    decoded = [row for row in ended if row is not RejectionReason.OVERLOADED]
    assert decoded.count("honest") == 2
    assert "honest" not in decoded[-20:], "in turn with the bombs, not after them"
    assert len(ended) - len(decoded) == 100 - 32 - 1


@pytest.mark.parametrize("body", [
    gzip.compress(RELAY)[:-1], gzip.compress(RELAY) + b"x", gzip.compress(RELAY) * 2, b"no gzip", b"",
    gzip.compress(LARGE)[:-9],
])  # fmt: skip
async def test_a_body_that_is_not_one_complete_member_is_unreadable(body):
    decoder, budget = decoder_and_budget()
    with pytest.raises(Rejected) as caught:
        await decoder.decode(body, 10 * MIB, reserved(budget, "one"))
    assert caught.value.reason is RejectionReason.BODY_UNREADABLE


@pytest.mark.parametrize("body", [RELAY, LARGE, bytes(MIB)])
async def test_the_plain_size_is_limited_to_the_byte(body):
    decoder, budget = decoder_and_budget()
    packed = gzip.compress(body)
    assert await decoder.decode(packed, len(body), reserved(budget, "one")) == body
    with pytest.raises(Rejected) as caught:
        await decoder.decode(packed, len(body) - 1, reserved(budget, "one"))
    assert caught.value.reason is RejectionReason.BODY_TOO_LARGE
