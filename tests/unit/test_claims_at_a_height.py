"""All claims of one supplier as of one height are read, whatever else nodes have."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket.chain.client import ChainClient
from pocket.chain.failover import NodeAddress
from pocket.chain.node_answer import HEIGHT_HEADER
from pocket.protocol.pb import pocket_proof_pb2 as proof_pb
from pocket.protocol.pb import pocket_session_pb2 as session_pb
from virtual_time import in_virtual_time

OURS, FOREIGN = "ours", "foreign"


class Reply:
    """A call that is answered after some seconds."""

    def __init__(self, raw, seconds):
        self._raw, self._seconds = raw, seconds

    def __await__(self):
        yield from asyncio.sleep(self._seconds).__await__()
        return self._raw

    async def initial_metadata(self):
        return ()


class Node:
    """Holds pages of claims for each height, and ignores the supplier that it is asked for."""

    def __init__(self, pages_by_height, page_seconds=0.0):
        self._pages, self._page_seconds = pages_by_height, page_seconds

    def renew(self):
        return

    def unary_unary(self, *_):
        return self._answer

    def _answer(self, raw, timeout, metadata):
        del timeout
        pages = self._pages.get(int(dict(metadata).get(HEIGHT_HEADER, 0)), [()])
        number = int(proof_pb.QueryAllClaimsRequest.FromString(raw).pagination.key or 0)
        answer = proof_pb.QueryAllClaimsResponse()
        answer.pagination.total = 1
        answer.pagination.next_key = b"%d" % (number + 1) if number + 1 < len(pages) else b""
        for supplier, session in pages[number]:
            header = session_pb.SessionHeader(
                application_address="app", service_id="eth", session_id=session, session_start_block_height=1,
                session_end_block_height=10,
            )  # fmt: skip
            answer.claims.append(
                proof_pb.Claim(supplier_operator_address=supplier, session_header=header, root_hash=bytes(48))
            )
        return Reply(answer.SerializeToString(), self._page_seconds)


ROWS = st.tuples(st.sampled_from((OURS, FOREIGN)), st.text("abc", min_size=1, max_size=3))
PAGES = st.lists(st.lists(ROWS, max_size=3), min_size=1, max_size=4)


async def of_any_node(client, height):
    return await client.claims_of(OURS, height)


async def of_each_node(client, height):
    (claims,) = (await client.claims_by_node(OURS, height)).values()
    return claims


@pytest.mark.parametrize("read", [of_any_node, of_each_node])
@given(pages=st.fixed_dictionaries({0: PAGES, 7: PAGES}), height=st.sampled_from((0, 7)))
async def test_claims_are_all_those_of_the_supplier_as_of_the_height(read, pages, height):
    client = ChainClient([NodeAddress.parse("node:1", "http://node:2")], channel=lambda _: Node(pages))
    wanted = [session for page in pages[height] for supplier, session in page if supplier == OURS]
    assert [claim.header.session_id for claim in await read(client, height)] == wanted


@in_virtual_time
async def test_a_list_of_many_pages_is_read_from_a_slow_node_each_within_the_deadline_of_a_query():
    pages = {0: [[(OURS, f"{number}")] for number in range(7)]}
    client = ChainClient([NodeAddress.parse("node:1", "http://node:2")], 2.0, channel=lambda _: Node(pages, 1.5))
    assert len(await of_each_node(client, 0)) == 7
