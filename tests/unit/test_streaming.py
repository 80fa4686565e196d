"""Batches of streamed answers lose no byte, and a real timer flushes a partial batch."""

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket.errors import DecodingError
from pocket_relayer.backends.framing import Framing, frame
from pocket_relayer.limits.rejection import Rejected
from pocket_relayer.pipeline.streaming import BATCH_LINES, LINE_BYTES, batches


async def chunks_of(*parts, gate=None):
    for number, part in enumerate(parts):
        if gate is not None and number:
            await gate.wait()
        yield part


async def collect(*parts):
    end = asyncio.get_running_loop().time() + 10
    return [batch async for batch in batches(chunks_of(*parts), end)]


@given(st.lists(st.binary(max_size=50), max_size=30))
def test_whatever_the_chunks_the_batches_are_the_same_bytes_in_whole_lines(parts):
    found = asyncio.run(collect(*parts))
    assert b"".join(found) == b"".join(parts)
    assert all(batch.endswith(b"\n") for batch in found[:-1])
    assert all(found)


async def test_a_batch_is_sent_when_it_is_full():
    found = await collect(b"x\n" * (BATCH_LINES + 5))
    assert [batch.count(b"\n") for batch in found] == [BATCH_LINES, 5]


async def test_a_line_without_end_is_refused():
    with pytest.raises(Rejected, match="longer than"):
        await collect(b"x" * (LINE_BYTES + 1))


async def test_lines_are_passed_on_before_the_next_ones_come():
    gate = asyncio.Event()
    made = batches(chunks_of(b"first\n", b"second\n", gate=gate), asyncio.get_running_loop().time() + 10)
    assert await anext(made) == b"first\n"
    gate.set()
    assert await anext(made) == b"second\n"
    with pytest.raises(StopAsyncIteration):
        await anext(made)


async def test_nothing_is_read_while_a_batch_is_not_taken():
    read = []

    async def source():
        for number in range(10):
            read.append(number)
            yield b"line\n"

    made = batches(source(), asyncio.get_running_loop().time() + 10)
    await anext(made)
    for _ in range(10):
        await asyncio.sleep(0)
    assert read == [0]


async def test_a_stream_beyond_its_deadline_is_refused():
    made = batches(chunks_of(b"a\n", b"b\n", gate=asyncio.Event()), asyncio.get_running_loop().time() + 0.02)
    assert await anext(made) == b"a\n"
    with pytest.raises(Rejected, match="in time"):
        await anext(made)


@given(st.lists(st.binary(max_size=100), max_size=5))
def test_grpc_messages_survive_framing(messages):
    assert Framing(1000).all(b"".join(frame(m) for m in messages)) == messages


@given(st.binary(max_size=60), st.sampled_from(["identity", "gzip", "snappy"]))
def test_framing_of_anything_is_messages_or_a_typed_error(data, encoding):
    with contextlib.suppress(DecodingError):
        assert all(len(message) <= 50 for message in Framing(50).all(data, encoding))


async def test_a_chunk_of_many_batches_lets_other_relays_go_on():
    others = 0

    async def other():
        nonlocal others
        while True:
            others += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    try:
        assert len(await collect(b"\n" * BATCH_LINES * 50)) == 50
        assert others >= 50
    finally:
        task.cancel()
