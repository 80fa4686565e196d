"""What a failed call means: every recorded error of the chain, and everything that nobody has seen yet."""

import random

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus import load
from example_counts import examples
from pocket.chain.failover import Failover
from pocket.chain.failures import classify_rpc, classify_status, error_from_status
from pocket.chain.node_health import NodeAssessment, NodeHealth, NodeHealthTable
from pocket.chain.response_checks import check_answer
from pocket.errors import (
    STATED,
    ChainError,
    ChainQueryRejected,
    ChainUnavailable,
    DecodingError,
    FailureClass,
    MethodNotImplemented,
    NotFound,
)
from pocket.protocol.pb import pocket_session_pb2 as session_pb
from pocket_localnet.grpc_service import METHODS as SERVED

CALLS = load("chain/grpc")["calls"]
ERRORS = {call["id"]: call for call in CALLS if call["status"] != "OK"}
LAGGING = {"cmt-block-future", "session-future", "session-ahead-of-state-at-height", "state-height-future"}
SESSION_NEVER = {
    "session-negative", "session-unknown-application", "session-invalid-application", "session-empty-application",
    "session-unknown-service", "session-invalid-service", "session-empty-service", "session-not-staked-for-service",
}  # fmt: skip
RESTARTED = (
    "codespace sdk code 26: invalid height: context did not contain latest block height in either check state or "
    "finalize block state (0)"
)


def expected(call):
    if call["id"] in LAGGING:
        return FailureClass.LAGGING_NODE
    if call["id"] in SESSION_NEVER:
        return FailureClass.SESSION_NEVER
    if call["status"] == "NOT_FOUND":
        # AccountInfo and RelayMiningDifficulty are not asked: what is not known is transient.
        unknown = ("AccountInfo", "RelayMiningDifficulty")
        return FailureClass.TRANSIENT if call["method"].endswith(unknown) else FailureClass.ABSENT
    return {
        "unknown-method": FailureClass.UNSUPPORTED, "unknown-grpc-service": FailureClass.WRONG_NODE,
        "tx-simulate-garbage": FailureClass.MESSAGE_NEVER,
    }.get(call["id"], FailureClass.TRANSIENT)  # fmt: skip


@pytest.mark.parametrize("identifier", ERRORS)
def test_every_recorded_error_has_its_class(identifier):
    call = ERRORS[identifier]
    assert classify_status(call["method"], grpc.StatusCode[call["status"]], call["message"]) is expected(call)


METHODS = sorted({call["method"] for call in CALLS})


@given(st.sampled_from(METHODS), st.sampled_from(list(grpc.StatusCode)), st.text(max_size=60))
def test_what_no_row_names_says_nothing_of_the_chain(method, code, text):
    """A proxy, a load balancer or a release of tomorrow: unknown words never end anything."""
    if not any(word in text.lower() for word in ("not", "invalid", "insufficient", "unknown", "pruned", "tx ")):
        assert isinstance(error_from_status(method, code, text), ChainUnavailable)


@pytest.mark.parametrize("method", METHODS)
def test_a_node_that_was_just_restarted_lags(method):
    error = error_from_status(method, grpc.StatusCode.UNKNOWN, RESTARTED)
    assert isinstance(error, ChainUnavailable)
    assert error.failure is FailureClass.LAGGING_NODE


def test_a_node_that_finds_a_message_too_early_has_not_got_the_block_that_opened_its_window():
    text = (
        "failed to execute message; message index: 0: rpc error: code = FailedPrecondition desc = current block height "
        "(39) is less than session's earliest proof commit height (50): proof attempted outside of the session's window"
    )
    error = error_from_status("/cosmos.tx.v1beta1.Service/Simulate", grpc.StatusCode.UNKNOWN, text)
    assert (type(error), error.failure) == (ChainUnavailable, FailureClass.LAGGING_NODE)
    late = text.replace("is less than", "is greater than")
    assert isinstance(error_from_status("/x/Simulate", grpc.StatusCode.UNKNOWN, late), ChainQueryRejected)


def test_the_rpc_tells_a_block_that_is_not_there_from_one_that_is_kept_no_more():
    not_yet = "height 612 must be less than or equal to the current blockchain height 611"
    assert classify_rpc(not_yet) is FailureClass.LAGGING_NODE
    assert classify_rpc("height 5 is not available, lowest height is 100") is FailureClass.PRUNED_NODE
    assert classify_rpc("Internal error") is FailureClass.TRANSIENT


def request_of(call):
    kind = SERVED[call["method"]][0] if call["method"] in SERVED else Empty
    return kind.FromString(bytes.fromhex(call["request"]))


@pytest.mark.parametrize("call", [c for c in CALLS if c["status"] == "OK"], ids=lambda c: c["id"])
def test_every_recorded_answer_is_taken_and_none_that_was_emptied(call):
    method, request = call["method"], request_of(call)
    check_answer(method, request, bytes.fromhex(call["response"]))
    checked = {"GetSession", "AllClaims", "ParamsAtHeight", "Claim", "Account", "RelayMiningDifficultyAtHeight"}
    if method.rsplit("/", 1)[-1] in checked:
        with pytest.raises(DecodingError):
            check_answer(method, request, b"")


@pytest.mark.parametrize(
    "call", [c for c in CALLS if c["status"] == "OK" and c["method"].endswith("/GetSession")], ids=lambda c: c["id"]
)
def test_a_session_is_taken_as_the_answer_to_its_own_heights_only(call):
    method, request, raw = call["method"], request_of(call), bytes.fromhex(call["response"])
    header = session_pb.QueryGetSessionResponse.FromString(raw).session.header
    for height in range(header.session_start_block_height - 1, header.session_end_block_height + 2):
        request.block_height = height
        if header.session_start_block_height <= height <= header.session_end_block_height or not height:
            check_answer(method, request, raw)
            continue
        with pytest.raises(DecodingError, match="was asked for"):
            check_answer(method, request, raw)


# Failover: every node is asked before an error goes up, in whatever order and whatever the others say.

OUTCOMES = {
    "answer": None,
    "down": lambda: ChainUnavailable("down"),
    "lagging": lambda: ChainUnavailable("behind", failure=FailureClass.LAGGING_NODE),
    "garbage": lambda: DecodingError("<html>"),
    "absent": lambda: NotFound("not found", height=7),
    "refused": lambda: ChainQueryRejected("not staked", height=9),
    "unsupported": lambda: MethodNotImplemented("unknown method"),
}


@settings(max_examples=examples(30))
@given(st.lists(st.sampled_from(sorted(OUTCOMES)), min_size=1, max_size=5), st.integers())
async def test_every_node_is_asked_before_an_error_goes_up(outcomes, seed):
    asked = []

    async def ask(node):
        asked.append(node)
        make = OUTCOMES[outcomes[node]]
        if make is not None:
            raise make()
        return node

    nodes = list(range(len(outcomes)))
    random.Random(seed).shuffle(nodes)
    failover = Failover(nodes, clock=lambda: 0.0, names=[outcomes[node] for node in nodes])
    if "answer" in outcomes:
        assert outcomes[await failover.call("q", ask, 5)] == "answer"
        return
    with pytest.raises(ChainError) as caught:
        await failover.call("q", ask, 5)
    error, stated = caught.value, [name for name in outcomes if name in ("absent", "refused")]
    rounds = 4 if set(outcomes) == {"lagging"} else 1  # such an address is asked again: another node may answer
    assert sorted(asked) == sorted(nodes * rounds)
    assert (error.failure in STATED) == bool(stated)
    if stated:
        best = "refused" if "refused" in stated else "absent"
        assert isinstance(error, type(OUTCOMES[best]()))
        assert error.nodes == (best,)
        assert sorted(error.unanswered) == sorted(name for name in outcomes if name not in ("absent", "refused"))
    else:
        assert isinstance(error, MethodNotImplemented) == (set(outcomes) == {"unsupported"})


async def test_a_node_that_is_known_to_be_unreachable_keeps_no_statement_from_being_final():
    async def ask(node):
        raise OUTCOMES[node]()

    health = NodeHealthTable(2)
    for statement, kind in (("absent", NotFound), ("unsupported", MethodNotImplemented)):
        nodes = Failover(["down", statement], node_health=health, names=["down", statement])
        health.assessments = (NodeAssessment(NodeHealth.UNREACHABLE), NodeAssessment())
        with pytest.raises(kind) as caught:
            await nodes.call("q", ask, 5)
        assert caught.value.unanswered == ()
        health.assessments = (NodeAssessment(), NodeAssessment())
        with pytest.raises(ChainError) as caught:
            await nodes.call("q", ask, 5)
        assert caught.value.unanswered == (("down",) if kind is NotFound else ())
        assert isinstance(caught.value, kind) == (kind is NotFound)
