"""Published heads of audit trails: they only move forward, and what contradicts them is a condition."""

import click
import pytest

from pocket.api.status import AuditHeadStatus
from pocket_miner.console.published_heads import parse_published_heads as read_heads
from pocket_operator.controller.audit_archive import with_heads
from pocket_operator.decide.audit_heads import audit_condition, audit_heads, published_heads
from pocket_operator.decide.pod_report import Report

A, B = "a" * 64, "b" * 64


def head(number, link=A, pod="m-0"):
    return AuditHeadStatus(pod=pod, number=number, hash=link)


def report(number, link=A, pod="m-0", component="miner"):
    audit = None if number is None else {"number": number, "hash": link}
    return Report.of(pod, {"component": component, "audit": audit})


@pytest.mark.parametrize(
    ("before", "reported", "published", "cut"),
    [
        (None, report(3), head(3), False),
        (head(3), report(4, B), head(4, B), False),
        (head(3), report(3), head(3), False),
        (head(3), report(2), head(3), True),
        (head(3), report(3, B), head(3), True),
        (head(3), report(0, ""), head(3), True),  # an empty volume
        (head(3), report(None), head(3), False),  # it does not know yet
        (None, report(0, ""), None, False),
        (head(3), report(1, component="relayer"), head(3), False),
    ],
)
def test_a_head_moves_forward_only(before, reported, published, cut):
    heads, lost = audit_heads({} if before is None else {"m-0": before}, [reported])
    assert heads == (() if published is None else (published,))
    assert lost == (("m-0",) if cut else ())


def test_the_head_of_a_pod_that_is_gone_stays():
    heads, lost = audit_heads({"m-1": head(9, pod="m-1")}, [report(1)])
    assert [h.pod for h in heads] == ["m-0", "m-1"]
    assert lost == ()


def test_unreadable_entries_of_a_status_are_ignored():
    assert published_heads({"audit": [{"pod": "m-0", "number": -1}, {"pod": "m-1", "number": 2, "hash": A}]}) == {
        "m-1": head(2, pod="m-1")
    }


def test_the_condition_names_the_pods():
    assert audit_condition(("m-0",), reported=True).state == "False"
    assert "m-0" in audit_condition(("m-0",), reported=True).message
    assert audit_condition((), reported=True).state == "True"
    assert audit_condition((), reported=False).state == "Unknown"


def test_one_line_a_day_is_archived_in_the_form_that_verify_reads():
    data = with_heads({"old": "x\n"}, [head(3)], "2026-01-01")
    data = with_heads(data, [head(4, B)], "2026-01-01")
    data = with_heads(data, [head(5, B)], "2026-01-02")
    assert data == {"old": "x\n", "m-0": f"2026-01-01 3 {A}\n2026-01-02 5 {B}\n"}
    assert [(h.number, h.hash) for h in read_heads(data["m-0"])] == [(3, A), (5, B)]
    for number in range(200):
        data = with_heads(data, [head(number + 6)], f"2026-02-{number:03}")
    assert len(data["m-0"].splitlines()) == 100


def test_a_line_that_is_no_head_is_refused():
    with pytest.raises(click.ClickException, match="line 2"):
        read_heads(f"2026-01-01 3 {A}\nnonsense\n")
