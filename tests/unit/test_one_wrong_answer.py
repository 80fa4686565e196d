"""One wrong value in an answer of a node: a typed error for that node alone, and nothing that stays wrong."""

import json

import pytest

from pocket.chain.comet import announced_height, block_of, latest_block_of, network_of, result_of, retention_of
from pocket.chain.model import Account, Block
from pocket.chain.pages import all_claims
from pocket.errors import ChainError, ChainQueryRejected, DecodingError
from pocket.protocol.pb import pocket_proof_pb2 as proof_pb
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.transactions.broadcast_errors import BroadcastFailure
from pocket.protocol.transactions.build import GasPrice, Timestamp, create_claim_message
from pocket.protocol.transactions.timeouts import MAXIMUM_SECONDS, UnorderedNonceAllocator
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.storage.audit import Audit
from pocket_miner.submission.deliveries import CLAIM, Deliveries
from pocket_miner.submission.fees import FeeTracker
from pocket_miner.submission.sender import SendError
from transaction_nodes import sender_to
from world import address
from wrong_values import COMMIT, STATUS, WRONG, changed, paths_in

PARSERS = {
    "latest block": (latest_block_of, STATUS), "network": (network_of, STATUS), "retention": (retention_of, STATUS),
    "commit": (block_of, COMMIT), "body": (result_of, {"jsonrpc": "2.0", "result": STATUS}),
}  # fmt: skip


@pytest.mark.parametrize("parser", PARSERS)
def test_any_wrong_field_of_an_rpc_answer_is_a_typed_error(parser):
    parse, right = PARSERS[parser]
    parse(right)
    for path in paths_in(right):
        for new in WRONG:
            try:
                parse(changed(right, path, new))
            except (ChainError, DecodingError):
                continue


@pytest.mark.parametrize("new", WRONG)
def test_any_wrong_height_of_an_announcement_is_a_typed_error(new):
    for path in ((), ("data",), ("data", "value"), ("data", "value", "header"), ("data", "value", "header", "height")):
        event = changed({"data": {"value": {"header": {"height": "7"}}}}, path, new)
        text = json.dumps({"result": event})
        try:
            announced_height(text)
        except (ChainError, DecodingError):
            continue


async def test_claims_of_other_suppliers_on_any_page_are_not_taken_for_ours():
    names = ["bob", "alice", "carol", "alice", "alice", "bob"]

    async def page(request):
        at = int(request.pagination.key or b"0")
        answer = proof_pb.QueryAllClaimsResponse()
        for number in (at, at + 1):
            answer.claims.add(supplier_operator_address=address(names[number]), root_hash=b"%d" % number)
        answer.pagination.next_key = b"%d" % (at + 2) if at + 2 < len(names) else b""
        return answer.SerializeToString()

    assert [claim.root_hash for claim in await all_claims(address("alice"), page)] == [b"1", b"3", b"4"]


async def test_pages_without_an_end_are_given_up():
    asked = []

    async def page(request):
        asked.append(request)
        answer = proof_pb.QueryAllClaimsResponse()
        answer.pagination.next_key = b"%d" % len(asked)
        return answer.SerializeToString()

    with pytest.raises(DecodingError, match="pages"):
        await all_claims(address("alice"), page)
    assert len(asked) < 2000


def test_a_block_time_that_jumped_ahead_once_does_not_stay_in_later_timeouts():
    nonces, now = UnorderedNonceAllocator(offset=1), Timestamp.of_nanoseconds(10**18)
    given = {nonces.next_timeout("s", now, 590).nanoseconds}
    nonces.next_timeout("s", Timestamp.of_nanoseconds(10**18 + 3600 * 10**9), 590)
    for seconds in range(10):
        block = Timestamp.of_nanoseconds(now.nanoseconds + seconds * 10**9)
        timeout = nonces.next_timeout("s", block, 120 if seconds % 2 else 590).nanoseconds
        assert timeout - block.nanoseconds <= (MAXIMUM_SECONDS + 10) * 10**9
        assert seconds == 0 or timeout not in given
        given.add(timeout)


KEPT = (BroadcastFailure.UNREACHABLE, BroadcastFailure.MEMPOOL_FULL)  # the same bytes are sent again


@pytest.mark.parametrize("refusal", [row for row in BroadcastFailure if row not in KEPT])
async def test_only_a_gas_limit_that_was_too_low_makes_a_refused_transaction_dearer(tmp_path, refusal):
    class Refuses:
        async def broadcast(self, raw):
            raise SendError(refusal, "as the node says")

    audit = Audit(tmp_path / "audit.sqlite")
    fees = FeeTracker(GasPrice.parse("0.001upokt"), audit)
    deliveries = Deliveries(CLAIM, None, Refuses(), fees, lambda: 13)
    session = TrackedSession(SessionHeader(address("app eth"), "eth", "a", 1, 10))
    for _ in range(5):
        with pytest.raises(SendError):
            await deliveries.broadcast(b"no transaction", [session], Block(13, bytes(32), Timestamp(10**9, 0)))
    assert session.claim.attempts.number == 5
    assert (session.claim.attempts.gas_factor > 1) is (refusal is BroadcastFailure.MORE_GAS)
    audit.close()


async def test_an_account_number_that_simulation_refuses_is_asked_for_again():
    class Chain:
        numbers = iter((0, 7))

        async def account(self, name):
            return Account(name, next(self.numbers), 0, None)

        async def simulate(self, raw):
            if self.simulated == 0:
                self.simulated += 1
                raise ChainQueryRejected("signature verification failed; please verify account number (7)")
            return 100_000

        simulated = 0

    sender = sender_to(Chain())
    header = SessionHeader(address("app eth"), "eth", "a", 1, 10)
    message = create_claim_message(address("alice"), header, bytes(48))
    block = Block(13, bytes(32), Timestamp.of_nanoseconds(10**18))
    with pytest.raises(SendError):
        await sender.prepare([message], block, 16)
    await sender.prepare([message], block, 16)
    assert (await sender._account.get()).number == 7
