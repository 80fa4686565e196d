"""What pods write at /report is what the operator reads, also if one of them is a release older or newer."""

import copy
import json
from types import SimpleNamespace

import pytest
from pydantic import BaseModel

from pocket.api.problems import ChainFinding, Problem, ProblemCode
from pocket.api.status import as_status
from pocket.chain.model import Block, StakedSupplier, Timestamp
from pocket.chain.node_health import NodeAssessment, NodeHealth
from pocket.protocol.transactions.build import GasPrice
from pocket_miner.process.process_status import ProcessStatus
from pocket_miner.sessions.deadlines import Deadline
from pocket_miner.sessions.stages import Stage
from pocket_miner.status.chain_diagnostics import ChainDiagnostics
from pocket_miner.status.readiness import Readiness
from pocket_miner.status.report import SupplierReport
from pocket_miner.storage.outcomes import SessionOutcome
from pocket_miner.suppliers.latest_block import LatestBlock
from pocket_operator.decide.plan import plan
from pocket_operator.decide.pod_report import PodReportBody, Report
from pocket_operator.decide.relay_miner_status import relay_miner_status
from pocket_operator.decide.supplier_status import supplier_status
from pocket_relayer.pipeline.sliding_window import SlidingWindowStats
from pocket_relayer.process.reports import WorkerReport, summary
from resources import address
from snapshots import snapshot

ALICE = address("alice")


def supplier_row():
    """Return what a miner writes of a supplier of which everything is known."""
    report = SupplierReport(open=3, endpoint_problems=["https://a: no answer"])
    report.record_stages({"a": Stage.ACTIVE, "b": Stage.CLAIMED}, 90, 1, Deadline(104, "claim", 2))
    report.record_stages({"a": Stage.CLAIMABLE, "b": Stage.PROVEN}, 95, 1, Deadline(104, "claim", 2))
    for name, session in ((SessionOutcome.SETTLED, "settled"), (SessionOutcome.CLAIM_MISSED, "missed")):
        details = {"time": "2026-11-29T10:00:00Z", "earned_by": {ALICE: 7}, "fees_upokt": 2, "claimed_upokt": 9}
        report.record_outcome(
            {"session_id": session, "height": 80, "outcome": name, "reason": "why", "details": details}
        )
    report.record_stake(StakedSupplier(ALICE, ALICE, 60_000, frozenset({"eth"}), 120))
    report.transports = {"eth": [1, 3]}
    report.record_funds(5_000_000, public_key=True)
    return report.row()


def miner_body():
    diagnostics = ChainDiagnostics(GasPrice.parse("1upokt"), 30.0, lambda: 10**18)
    diagnostics.on_node_health("node-1", NodeAssessment(NodeHealth.LAGGING, 5, "behind"))
    audit = SimpleNamespace(head=SimpleNamespace(number=2), head_row={"number": 2, "hash": "a" * 64, "trail": "t"})
    suppliers = SimpleNamespace(
        audit=audit, addresses=[ALICE], reports=SimpleNamespace(rows=lambda: {ALICE: supplier_row()}),
        keyring=SimpleNamespace(digest="d", signer_problem=""),
    )  # fmt: skip
    fleet = SimpleNamespace(
        running={ALICE: None},
        epochs={0: 1},
        keeper=SimpleNamespace(leads=True),
        seconds_since_scan=lambda: {ALICE: 1.5},
    )
    board, readiness = LatestBlock(), Readiness(30.0, lambda: 0.0)
    board.publish(Block(96, bytes(32), Timestamp(1)))
    readiness.redis, readiness.volume = "Redis does not answer", "the volume has 1 of 20 MiB free"
    status = ProcessStatus(
        SimpleNamespace(keys_required=True), board, readiness, diagnostics,
        lambda: SimpleNamespace(suppliers=suppliers, fleet=fleet), lambda: None, lambda: 0.0,
    )  # fmt: skip
    return status.report()


def relayer_body():
    recent = SlidingWindowStats(lambda: 5.0)
    recent.served(0.25)
    recent.failed()
    problem = Problem(code=ProblemCode.NO_NEW_BLOCK, message="no block")
    worker = WorkerReport(0, 1, "d", 96, 0, (problem,), [ALICE], ["gone"], recent.totals())
    return summary([worker], 1)


BODIES = {"miner": miner_body, "relayer": relayer_body}
OF_MINERS = {"owned", "looked", "redis", "volume", "chain", "suppliers", "audit"}
OF_RELAYERS = {"leaving", "complete", "recent"}
WRITTEN = pytest.mark.parametrize("component", BODIES)


def body_of(component):
    """Return a report as it comes over HTTP."""
    return json.loads(json.dumps(BODIES[component]()))


def unread(model, path=""):
    """Yield the fields that a reader knows and that the report does not have."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        if name not in model.model_fields_set:
            yield f"{path}{name}"
            continue
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
        for one in inner:
            if isinstance(one, BaseModel):
                yield from unread(one, f"{path}{name}.")


@WRITTEN
def test_every_field_that_the_operator_reads_is_written(component):
    others = OF_RELAYERS if component == "miner" else OF_MINERS
    stages = {"suppliers.sessions.active", "suppliers.sessions.claimed", "suppliers.sessions.proof_not_required"}
    missing = set(unread(PodReportBody.model_validate(body_of(component))))
    assert missing == others | (stages if component == "miner" else set()), "stages without a session are left out"


def test_a_miners_values_are_read_as_they_are_written():
    row = Report.of("p", body_of("miner")).supplier(ALICE)
    assert (row.open, row.closing, row.sessions.claimable, row.sessions.proven) == (3, 1, 1, 1)
    assert (row.last.claim, row.last.settlement) == ("b at 90", "settled at 80")
    assert row.last.loss == "missed at 80: claim_missed: why"
    assert (row.stake.amount_upokt, row.stake.services, row.stake.unstake_session_end_height) == (60_000, ("eth",), 120)
    assert (row.deadline.kind, row.deadline.height, row.deadline.sessions) == ("claim", 104, 2)
    assert (row.day.date, row.day.settled, row.day.lost, row.day.fees_upokt) == ("2026-11-29", 1, 1, 4)
    assert (row.balance_upokt, row.public_key_on_chain, row.earned_by) == (5_000_000, True, {ALICE: 14})


def parts(body, path=()):
    """Yield the path of every field of a report. The keys of a map of amounts or suppliers are no fields."""
    maps = {"suppliers", "earned_by", "looked", "transports", "fees_by_day"}
    for name, value in body.items():
        here = (*path, name)
        if not (path and path[-1] in maps):
            yield here
        if isinstance(value, dict):
            yield from parts(value, here)
        for number, row in enumerate(value if isinstance(value, list) else ()):
            if isinstance(row, dict):
                yield from parts(row, (*here, number))


def at(body, path):
    for name in path:
        body = body[name]
    return body


def statuses(*bodies):
    """Return what the operator writes, decided by these reports."""
    seen = snapshot(reports=tuple(Report.of(f"main-{body['component']}-0", body, 99.0) for body in bodies))
    decided = plan(seen)
    return as_status(relay_miner_status(seen, decided)), as_status(
        supplier_status(decided.key_checks[0], seen, decided)
    )


REQUIRED = {"component", "open", "code", "message", "reason", "text", "number", "hash", "kind", "height", "date"}
"""Fields without a default in every release: their objects mean nothing without them."""


@WRITTEN
def test_a_field_that_an_older_pod_does_not_write_hides_no_other(component):
    body, other = body_of(component), body_of("relayer" if component == "miner" else "miner")
    whole = PodReportBody.model_validate(body).model_dump()
    optional = [path for path in parts(body) if path[-1] not in REQUIRED or path == ("height",)]
    assert len(optional) > 5
    for path in optional:
        older = copy.deepcopy(body)
        del at(older, path[:-1])[path[-1]]
        read = PodReportBody.model_validate(older).model_dump()
        changed = {name for name in whole if read[name] != whole[name]}
        assert changed <= {path[0]}, path
        statuses(older, other)


@WRITTEN
def test_what_a_newer_pod_writes_in_addition_changes_nothing(component):
    body, other = body_of(component), body_of("relayer" if component == "miner" else "miner")
    before = statuses(body, other)
    for path in {path[:-1] for path in parts(body)}:
        newer = copy.deepcopy(body)
        at(newer, path)["something_new"] = {"of": ["another", "release"]}
        assert statuses(newer, other) == before, path


def test_codes_of_a_newer_pod_are_shown_and_decide_nothing_else():
    miner, relayer = body_of("miner"), body_of("relayer")
    newer = copy.deepcopy(miner)
    newer["problems"].append({"code": "OfTomorrow", "message": "something that is not known here"})
    newer["chain"].append({"reason": "OfTomorrow", "text": "something"})
    newer["suppliers"][ALICE]["deadline"]["kind"] = "of tomorrow"
    conditions = {row["type"]: row["reason"] for row in statuses(miner, relayer)[0]["conditions"]}
    assert {row["type"]: row["reason"] for row in statuses(newer, relayer)[0]["conditions"]} == conditions
    assert [row["reason"] for row in miner["chain"]] == [ChainFinding.CHAIN_NODES_DISAGREE]
