"""One transaction for many claims: what the chain says against one of them is not held against the others."""

import contextlib
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from example_counts import examples
from pocket.chain.model import Account, Block, TransactionResult
from pocket.errors import ChainQueryRejected, ChainUnavailable
from pocket.protocol.claims.proof_requirement import Claim
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.transactions.broadcast_errors import BroadcastFailure
from pocket.protocol.transactions.build import GasPrice, Timestamp, adjusted_gas, create_claim_message
from pocket.protocol.transactions.decode import decode_tx
from pocket.redis_store.store_errors import ConcurrentAppend, StaleEpoch
from pocket_miner.submission.gas import believed_gas, typical_gas
from pocket_miner.submission.sender import SendError, send_in_batches
from transaction_nodes import sender_to
from world import address

HEADER = SessionHeader(address("app eth"), "eth", "", 1, 10)
ROOT = bytes(32) + (300).to_bytes(8, "big") + (3).to_bytes(8, "big")
BLOCK = Block(13, bytes(32), Timestamp.of_nanoseconds(10**18))


class Chain:
    """Refuses transactions that hold certain sessions, one after the other, as a node names them."""

    def __init__(self, refused, text):
        self.refused = refused
        self.text = text
        self.asked = []

    async def account(self, address_):
        return Account(address_, 7, 0, None)

    async def simulate(self, raw):
        sessions = decode_tx(raw).claims
        self.asked.append(list(sessions))
        for index, session_id in enumerate(sessions):
            if session_id in self.refused:
                raise ChainQueryRejected(self.text.format(index=index))
        return 100_000


def sender_of(chain):
    return sender_to(chain)


async def sift(refused, text="failed to execute message; message index: {index}: {{}}", said=""):
    chain = Chain(refused, text.replace("{{}}", said))
    sender = sender_of(chain)
    messages = [create_claim_message(address("alice"), replace(HEADER, session_id=name), ROOT) for name in "abcd"]
    return await sender.prepare_skipping_rejected(messages, BLOCK, 16), chain


@pytest.mark.parametrize("said", ["could not find app with address", "a rule that later chains have"])
async def test_what_is_refused_by_name_is_left_out_and_the_rest_is_signed(said):
    sifted, chain = await sift("bd", said=said)
    assert list(decode_tx(sifted.prepared.signed.raw).claims) == ["a", "c"]
    assert {position: said in str(error) for position, error in sifted.refused.items()} == {1: True, 3: True}
    assert len(chain.asked) == 3


async def test_where_all_are_refused_nothing_is_signed():
    sifted, _ = await sift("abcd", said="supplier not found")
    assert (sifted.prepared, sorted(sifted.refused)) == (None, [0, 1, 2, 3])


@pytest.mark.parametrize(("text", "refusal"), [
    ("message index: {index}: current block height (13) is less than session's: outside of the session's claim window",
     BroadcastFailure.TOO_EARLY),
    ("message index: {index}: insufficient funds", BroadcastFailure.NO_FUNDS),
    ("the node is being started", BroadcastFailure.RETRY),
    ("message index: 9: could not find app", BroadcastFailure.POISON),
    ("message index: 4: could not find app", BroadcastFailure.POISON),
])  # fmt: skip
async def test_what_concerns_the_whole_transaction_or_nobody_knows_whom_is_told_at_once(text, refusal):
    with pytest.raises(SendError) as caught:
        await sift("b", text)
    assert caught.value.refusal is refusal


class Nodes:
    """Answers of several nodes about a supplier's claims."""

    def __init__(self, **answers):
        self.answers = answers

    async def claims_by_node(self, supplier, height):
        return self.answers


CLAIM = Claim(address("alice"), HEADER, ROOT)
AWAY = ChainUnavailable("no answer")


@pytest.mark.parametrize(("answers", "claims"), [
    ({"one": [], "other": [CLAIM]}, [CLAIM]), ({"one": [CLAIM], "other": AWAY}, [CLAIM]),
    ({"one": AWAY, "other": []}, []),
])  # fmt: skip
async def test_a_claim_that_one_node_shows_is_there(answers, claims):
    assert await sender_of(Nodes(**answers)).claims_at(13) == claims


@pytest.mark.parametrize("answers", [{}, {"one": AWAY, "other": AWAY}])
async def test_claims_are_unknown_where_no_node_answers(answers):
    with pytest.raises(ChainUnavailable):
        await sender_of(Nodes(**answers)).claims_at(13)


class Node(Chain):
    """Answers broadcasts after some time on the clock."""

    def __init__(self, clock, answer):
        super().__init__("", "")
        self.clock, self.answer = clock, answer

    async def broadcast(self, raw):
        self.clock[0] += 0.3
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (TransactionResult("AB", 0, "", ""), "accepted"),
        (TransactionResult("AB", 19, "sdk", "tx already exists in cache"), "known"),
        (TransactionResult("AB", 5, "sdk", "insufficient funds"), "no_funds"),
        (ChainUnavailable("no node answers"), "unreachable"),
    ],
)
async def test_broadcasts_are_counted_by_result_with_their_seconds(answer, result):
    clock = [5.0]
    sender = sender_of(Node(clock, answer))
    sender._clock = lambda: clock[0]

    def measured(suffix):
        return REGISTRY.get_sample_value(f"pocket_miner_broadcast_seconds_{suffix}", {"result": result}) or 0.0

    def sizes():
        return REGISTRY.get_sample_value("pocket_miner_transaction_bytes_sum")

    before, bytes_before = (measured("count"), measured("sum")), sizes()
    with contextlib.suppress(SendError):
        await sender.broadcast(b"1234567")
    assert sizes() - bytes_before == 7
    assert (measured("count") - before[0], measured("sum") - before[1]) == (1, pytest.approx(0.3))


async def test_one_absurd_answer_about_gas_spends_no_balance_and_a_usual_one_is_believed():
    chain = Chain("", "")
    messages = [create_claim_message(address("alice"), replace(HEADER, session_id=name), ROOT) for name in "abcd"]
    usual = (await sender_of(chain).prepare(messages, BLOCK, 16)).signed.raw
    assert decode_tx(usual).fee_upokt == 150

    async def absurd(raw):
        return 10**14

    chain.simulate = absurd
    dear = (await sender_of(chain).prepare(messages, BLOCK, 16)).signed.raw
    assert decode_tx(dear).fee_upokt < 50_000, "of 150 million that the answer stands for"
    for used in (0, 1, 1000):
        assert believed_gas(used, usual) == typical_gas(usual) // 6, "three attempts with more gas are enough"
    assert believed_gas(typical_gas(usual) // 2, usual) == typical_gas(usual) // 2


@pytest.mark.parametrize(("measured", "seconds"), [(1.0, 120), (100.0, 240), (10_000.0, 590)])
async def test_a_transaction_can_be_included_though_blocks_are_slower_than_expected(measured, seconds):
    sender = sender_of(Chain("", ""))
    sender.measured_block_seconds = lambda: measured
    message = create_claim_message(address("alice"), replace(HEADER, session_id="a"), ROOT)
    prepared = await sender.prepare([message], BLOCK, 16)
    assert prepared.timeout.seconds - BLOCK.time.seconds == seconds


@pytest.mark.parametrize("code", [4, 32])
async def test_an_account_number_that_nodes_refuse_is_replaced_by_one_that_other_nodes_state(code):
    sender = sender_of(chain := Chain((), ""))
    message = create_claim_message(address("alice"), replace(HEADER, session_id="a"), ROOT)
    dropped, stated = [], {"wrong": 7, "right": 8, "right, too": 8, "other": 9}

    async def decoded_by_node(*_):
        return {name: Account(address("alice"), number, 0, None) for name, number in stated.items()}

    async def adopt(method, request, raw):
        dropped.append((request.address, raw))

    async def broadcast(raw):
        return TransactionResult("hash", code, "sdk", "signature verification failed", 15)

    chain.decoded_by_node, chain.adopt, chain.broadcast = decoded_by_node, adopt, broadcast
    numbers = []
    for _ in range(5):
        prepared = await sender.prepare([message], BLOCK, 16)
        numbers.append((await sender._account.get()).number)
        with pytest.raises(SendError) as refused:
            await sender.broadcast(prepared.signed.raw)
        assert refused.value.refusal is BroadcastFailure.ACCOUNT
    assert numbers == [7, 8, 9, 7, 8], "the most frequent first, and what was refused last"
    assert dropped == [(address("alice"), None)] * 5
    stated.clear()
    await sender.prepare([message], BLOCK, 16)
    assert (await sender._account.get()).number == 7, "without an answer of every node the first one counts"


@pytest.mark.parametrize(
    ("error", "sent"), [(StaleEpoch("another owner", 2), 1), (ConcurrentAppend("grown"), 3), (SendError(
        BroadcastFailure.NO_FUNDS, "no funds"), 3)]
)  # fmt: skip
async def test_a_transaction_that_fails_stops_the_next_ones_only_where_another_owner_has_taken_over(error, sent):
    packs = []

    async def send(pack):
        packs.append(pack)
        raise error

    message = create_claim_message(address("alice"), HEADER, ROOT)
    with pytest.raises(type(error)):
        await send_in_batches("abc", lambda _: message, 10**6, send, alone=lambda _: True)
    assert len(packs) == sent


@pytest.mark.parametrize(("balance", "sent", "attempts"), [(2, "ab", 4), (3, "abc", 5), (0, "", 7)])
async def test_of_messages_that_a_balance_cannot_pay_together_those_are_sent_that_it_can(balance, sent, attempts):
    paid, tried = [], []

    async def send(pack):
        tried.append(pack)
        if len(paid) + len(pack) > balance:
            raise SendError(BroadcastFailure.NO_FUNDS, "no funds")
        paid.extend(pack)

    message, rows = create_claim_message(address("alice"), HEADER, ROOT), "abcd" if balance else "a" * 32
    with pytest.raises(SendError):
        await send_in_batches(rows, lambda _: message, 10**6, send)
    assert "".join(paid) == sent
    assert len(tried) <= attempts + 4, "an account without funds is not asked about each message"


@pytest.mark.parametrize("factor", [1.0, 2.5, 6.25])
async def test_more_gas_is_asked_for_after_a_failure_for_lack_of_it_and_paid_at_the_price(factor):
    message = create_claim_message(address("alice"), replace(HEADER, session_id="a"), ROOT)
    prepared = await sender_of(Chain("", "")).prepare([message], BLOCK, 16, factor)
    sent = tx_pb.AuthInfo.FromString(tx_pb.TxRaw.FromString(prepared.signed.raw).auth_info_bytes).fee
    assert sent.gas_limit == adjusted_gas(100_000, Decimal("1.5") * Decimal(str(factor)))
    assert [(coin.denom, int(coin.amount)) for coin in sent.amount] == [
        ("upokt", GasPrice.parse("0.001upokt").fee_upokt(sent.gas_limit))
    ]


@settings(max_examples=examples(60))
@given(
    st.lists(st.sampled_from("gb"), max_size=9), st.integers(1, 4), st.sets(st.integers(0, 8)),
    st.sampled_from([BroadcastFailure.POISON, BroadcastFailure.UNREACHABLE]),
)  # fmt: skip
async def test_one_bad_message_in_whichever_batch_keeps_no_other_from_being_sent(kinds, together, alone, failure):
    rows, sent, told = list(enumerate(kinds)), [], []
    message = create_claim_message(address("alice"), HEADER, ROOT)

    async def send(pack):
        told.append([number for number, _ in pack])
        if any(kind == "b" for _, kind in pack):
            raise SendError(failure, "no")
        sent.extend(number for number, _ in pack)

    size = 2048 + together * (len(message.value) + 128)
    with pytest.raises(SendError) if "b" in kinds else contextlib.nullcontext():
        await send_in_batches(rows, lambda _: message, size, send, alone=lambda row: row[0] in alone)
    assert all(len(pack) <= together for pack in told)
    assert all(len(pack) == 1 for pack in told if alone.intersection(pack))
    good = [number for number, kind in rows if kind == "g"]
    assert {number for pack in told for number in pack} == set(range(len(rows))), "each is tried"
    assert len(sent) == len(set(sent))
    if failure is BroadcastFailure.POISON:
        assert sorted(sent) == good, "a batch is halved until the bad one is alone"
    else:
        assert told == [pack for number, pack in enumerate(told) if pack not in told[:number]], "no batch is halved"
