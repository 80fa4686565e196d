"""A supplier's stake is checked once for all relays of a moment, and again at the next one."""

import pytest

from pocket.chain.model import StakedSupplier
from pocket.chain.node_answer import NodeAnswer
from pocket.protocol.pb import pocket_supplier_pb2 as supplier_pb
from pocket.protocol.relays.messages import RelayRequest, SessionHeader
from pocket_relayer.limits.rejection import Rejected, RejectionReason
from pocket_relayer.pipeline.admission import Admission

HEADER = SessionHeader("app", "eth", "s", 1, 10)
REQUEST = RelayRequest(HEADER, b"", "pokt1a", b"")


class Stakes:
    """Chain queries for one supplier whose services change."""

    def __init__(self):
        self.services = {"eth"}
        self.queries = 0

    async def supplier(self, operator_address):
        self.queries += 1
        return StakedSupplier(operator_address, "owner", 1, frozenset(self.services), 0)

    async def ask_every_node(self, *_):
        answer = supplier_pb.QueryGetSupplierResponse(supplier={"stake": {"denom": "upokt", "amount": "1"}})
        return {"node": NodeAnswer(answer.SerializeToString())}

    async def adopt(self, *_):
        return


async def test_a_stake_is_checked_again_at_the_next_moment():
    stakes, moment = Stakes(), [1]
    admission = Admission(stakes, lambda: 5, lambda: 0.0, moment=lambda: moment[0])
    for _ in range(3):
        await admission.check_supplier(REQUEST, HEADER, "jsonRpc")
    assert stakes.queries == 1
    stakes.services = {"other"}
    await admission.check_supplier(REQUEST, HEADER, "jsonRpc")
    moment[0] = 2
    with pytest.raises(Rejected) as rejected:
        await admission.check_supplier(REQUEST, HEADER, "jsonRpc")
    assert rejected.value.reason is RejectionReason.WRONG_SERVICE


async def test_a_rejection_is_not_remembered_and_neither_is_another_session_service_or_transport():
    stakes = Stakes()
    admission = Admission(stakes, lambda: 5, lambda: 0.0, moment=lambda: 1)
    stakes.services = {"other"}
    for _ in range(2):
        with pytest.raises(Rejected):
            await admission.check_supplier(REQUEST, HEADER, "jsonRpc")
    stakes.services, stakes.queries = {"eth"}, 0
    later = SessionHeader("app", "eth", "s", 11, 20)
    for header, rpc_type in ((HEADER, "jsonRpc"), (later, "jsonRpc"), (later, "rest")):
        await admission.check_supplier(REQUEST, header, rpc_type)
    assert stakes.queries == 3


async def test_the_configured_limit_applies_at_once():
    limits = {}
    admission = Admission(Stakes(), lambda: 5, lambda: 0.0, lambda: limits, moment=lambda: 1)
    await admission.check_supplier(REQUEST, HEADER, "jsonRpc")
    limits["pokt1a"] = frozenset({"other"})
    with pytest.raises(Rejected):
        await admission.check_supplier(REQUEST, HEADER, "jsonRpc")


@pytest.mark.parametrize("stated", ["eth", "other", None])
async def test_one_answer_takes_no_supplier_out_of_service(stated):
    class Corrected(Stakes):
        """The first answer is of one node. What all nodes state replaces it, if they state anything."""

        async def ask_every_node(self, *_):
            return {} if stated is None else await super().ask_every_node()

        async def adopt(self, *_):
            self.services = {stated}

    stakes = Corrected()
    stakes.services = {"other"}
    check = Admission(stakes, lambda: 5, lambda: 0.0, moment=lambda: 1).check_supplier(REQUEST, HEADER, "jsonRpc")
    if stated == "other":
        with pytest.raises(Rejected):
            await check
    else:
        await check
