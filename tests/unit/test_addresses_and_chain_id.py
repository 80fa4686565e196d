import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket.chain.chain_id import require_chain_id
from pocket.errors import ChainUnavailable, ConfigurationError, InvalidAddress
from pocket.protocol.crypto.addresses import encode_address, is_address, parse_address


@given(st.binary(min_size=1, max_size=255))
def test_every_payload_survives_in_both_cases(payload):
    text = encode_address(payload)
    assert parse_address(text) == parse_address(text.upper()) == payload


@given(st.text(max_size=90))
def test_arbitrary_text_raises_only_typed_errors(text):
    assert is_address(text) in (True, False)


@given(st.binary(min_size=20, max_size=20), st.data())
def test_one_wrong_character_is_always_noticed(payload, data):
    text = encode_address(payload)
    at = data.draw(st.integers(5, len(text) - 1))
    other = data.draw(st.sampled_from("qpzry9x8gf2tvdw0s3jn54khce6mua7l").filter(lambda c: c != text[at]))
    with pytest.raises(InvalidAddress, match="checksum"):
        parse_address(text[:at] + other + text[at + 1 :])


class Node:
    def __init__(self, *answers):
        self.answers = list(answers)

    async def chain_id(self):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_the_wrong_chain_is_refused_and_an_unreachable_one_waited_for():
    await require_chain_id(Node(ChainUnavailable("down"), "pocket"), "pocket", asyncio.Event(), pause_seconds=0)
    with pytest.raises(ConfigurationError, match=r"'other', spec.chain.id is 'pocket'"):
        await require_chain_id(Node("other"), "pocket", asyncio.Event())
    stopped = asyncio.Event()
    stopped.set()
    await require_chain_id(Node(), "pocket", stopped)


async def test_a_node_that_stays_away_is_told_of_once_and_not_at_every_look(captured_logs):
    away = [ChainUnavailable("down")] * 50
    await require_chain_id(Node(*away, "pocket"), "pocket", asyncio.Event(), pause_seconds=0)
    assert [(row["event"], str(row["error"])) for row in captured_logs] == [
        ("waiting for a chain node: check spec.chain.nodes", "down")
    ]
