"""Every reason that the operator can give is given in some situation, on the condition that it belongs to."""

from dataclasses import replace
from pathlib import Path

import pytest

from pocket.api.problems import ProblemCode
from pocket.api.status import as_status
from pocket.keys.sealed_box import Controller, Subject, seal
from pocket_operator.decide.plan import plan
from pocket_operator.decide.pod_report import Report
from pocket_operator.decide.reasons import ConditionReason
from pocket_operator.decide.relay_miner_status import relay_miner_status
from pocket_operator.decide.snapshot import Rejection, SecretView
from pocket_operator.decide.supplier_status import supplier_status
from pocket_operator.decide.volume_claims import VolumeClaim
from resources import address, changed, key_of
from snapshots import ALICE, MINER_POD, POD, RM, gone, miner_report, relayer_report, snapshot, with_uid

DIGESTS = plan(snapshot()).digests
READY = (relayer_report(address("alice")), miner_report())


def loaded(*reports):
    """Return the reports of pods that have the published keys."""
    made = []
    for report in reports:
        body = report.answer.model_dump() | {"keys": DIGESTS[report.component]}
        made.append(Report.of(report.pod, body, report.at))
    return tuple(made)


def told(report, **fields):
    return Report.of(report.pod, report.answer.model_dump() | fields, report.at)


def note(reason):
    return told(miner_report(), chain=[{"reason": reason.value, "text": "words"}])


def paused():
    return changed(RM, "spec.paused", True)


def with_secret(**data):
    return {"secrets": {"alice-key": SecretView(data)}, "published": None}


REDIS_IN_A_SECRET = changed(RM, "spec.redis", {"urlSecretRef": {"name": "none", "key": "url"}})
# A RelayMiner without any key publishes an empty set.
NO_KEYS = plan(snapshot(secrets={"alice-key": None}, published=None)).digests
ANY_KEYS = tuple(told(report, keys=NO_KEYS[report.component]) for report in (relayer_report(), miner_report()))
KEYLESS = {"secrets": {"alice-key": None}, "published": None, "reports": ANY_KEYS}
CONTROLLER = Controller.of([Controller.generate()])
BOB = Subject("ns", "bob", address("bob"))


DAMAGED = seal(CONTROLLER.newest, BOB, key_of("alice"))
DAMAGED = DAMAGED[:100] + ("B" if DAMAGED[100] == "A" else "A") + DAMAGED[101:]


def sealed(text):
    """Return a Supplier with a sealed key."""
    supplier = with_uid(changed(ALICE, "spec.key", {"sealed": text}), "alice")
    return {"suppliers": (supplier,), "controller": CONTROLLER, "published": None}


LOADED = loaded(*READY)
NONE = {"suppliers": (), "owners": {}}
LOST = miner_report(lost_recently=1)
WITH_TRAIL = loaded(told(miner_report(), audit={"number": 3, "hash": "a" * 64}))
PUBLISHED = changed(RM, "status.audit", [{"pod": miner_report().pod, "number": 4, "hash": "b" * 64}])
# (of the RelayMiner or the Supplier, changes of the snapshot, condition, status, reason)
SITUATIONS = [
    ("rm", {"reports": LOADED}, "KeysLoaded", "True", ConditionReason.LOADED),
    ("rm", {"reports": LOADED}, "RedisReachable", "True", ConditionReason.REACHABLE),
    ("rm", {"reports": LOADED}, "ChainReachable", "True", ConditionReason.REACHABLE),
    ("rm", {"reports": LOADED}, "ClaimsHealthy", "True", ConditionReason.CLAIMS_HEALTHY),
    ("rm", {"reports": LOADED}, "Paused", "False", ConditionReason.NOT_PAUSED),
    ("rm", {"reports": LOADED}, "Stalled", "False", ConditionReason.NOT_STALLED),
    ("supplier", {"reports": LOADED}, "Reconciling", "False", ConditionReason.NOT_RECONCILING),
    ("rm", {"reports": LOADED}, "SuppliersServed", "True", ConditionReason.ALL_SERVED),
    ("rm", {"reports": LOADED}, "UpToDate", "True", ConditionReason.UP_TO_DATE),
    ("rm", {"reports": WITH_TRAIL}, "AuditTrailsIntact", "True", ConditionReason.AUDIT_TRAILS_INTACT),
    (
        "rm",
        {"reports": WITH_TRAIL, "relay_miner": PUBLISHED},
        "AuditTrailsIntact",
        "False",
        ConditionReason.AUDIT_TRAIL_CUT,
    ),
    ("rm", {"reports": ()}, "SuppliersServed", "False", ConditionReason.LOADING_KEYS),
    (
        "rm",
        {"reports": loaded(relayer_report(address("alice")), miner_report(owned=()))},
        "SuppliersServed",
        "False",
        ConditionReason.SUPPLIERS_NOT_SERVED,
    ),
    ("rm", NONE, "SuppliersServed", "False", ConditionReason.NO_SUPPLIERS),
    ("rm", {"relay_miner": gone(RM)}, "SuppliersServed", "False", ConditionReason.DRAINING),
    ("rm", {"reports": ()}, "RedisReachable", "Unknown", ConditionReason.NO_REPORT),
    ("rm", {"reports": ()}, "ChainReachable", "Unknown", ConditionReason.NO_REPORT),
    ("rm", {"reports": ()}, "ClaimsHealthy", "Unknown", ConditionReason.NO_REPORT),
    ("rm", {"reports": (miner_report(owned=()),)}, "ClaimsHealthy", "Unknown", ConditionReason.NO_REPORT),
    ("rm", {"reports": loaded(relayer_report())[:1]}, "KeysLoaded", "False", ConditionReason.LOADING_KEYS),
    ("rm", {"reports": (), "relay_miner": paused()}, "KeysLoaded", "Unknown", ConditionReason.NO_REPORT),
    ("rm", {"reports": (), "relay_miner": paused()}, "Paused", "True", ConditionReason.PAUSED),
    ("rm", {"reports": (), "relay_miner": paused()}, "Ready", "Unknown", ConditionReason.PAUSED),
    ("rm", NONE, "KeysLoaded", "False", ConditionReason.NO_SUPPLIERS),
    ("rm", NONE, "Ready", "False", ConditionReason.NO_SUPPLIERS),
    ("rm", {}, "Ready", "False", ConditionReason.ROLLING_OUT),
    ("rm", {"relay_miner": gone(RM)}, "Reconciling", "True", ConditionReason.DRAINING),
    (
        "rm",
        {"reports": (told(miner_report(), redis="away"),)},
        "RedisReachable",
        "False",
        ConditionReason.REDIS_UNREACHABLE,
    ),
    (
        "rm",
        {"reports": (told(miner_report(), problems=[{"code": ProblemCode.NO_NEW_BLOCK, "message": "m"}]),)},
        "ChainReachable",
        "False",
        ConditionReason.CHAIN_UNREACHABLE,
    ),
    (
        "rm",
        {"reports": (note(ConditionReason.GAS_PRICE_TOO_LOW),)},
        "ChainReachable",
        "False",
        ConditionReason.GAS_PRICE_TOO_LOW,
    ),
    ("rm", {"reports": (note(ConditionReason.CLOCK_SKEWED),)}, "ChainReachable", "True", ConditionReason.CLOCK_SKEWED),
    (
        "rm",
        {"reports": (note(ConditionReason.CHAIN_NODES_DISAGREE),)},
        "ChainReachable",
        "True",
        ConditionReason.CHAIN_NODES_DISAGREE,
    ),
    ("rm", {"reports": LOADED}, "VolumesHealthy", "True", ConditionReason.VOLUMES_FINE),
    (
        "rm",
        {"reports": LOADED, "claims": (VolumeClaim("data-main-miner-0", "10Gi", "5Gi"),)},
        "VolumesHealthy",
        "True",
        ConditionReason.VOLUME_EXPANDING,
    ),
    (
        "rm",
        {"reports": LOADED, "claims": (VolumeClaim("data-main-miner-0", "5Gi", "5Gi", "forbidden"),)},
        "VolumesHealthy",
        "False",
        ConditionReason.VOLUME_NOT_EXPANDED,
    ),
    (
        "rm",
        {"reports": LOADED, "claims": (VolumeClaim("data-main-miner-0", "10Gi", "10Gi", deleting=True),)},
        "VolumesHealthy",
        "False",
        ConditionReason.VOLUME_BEING_DELETED,
    ),
    ("rm", {"reports": LOADED}, "SchemaCurrent", "True", ConditionReason.SCHEMA_MATCHES),
    (
        "rm",
        {"reports": (told(miner_report(), volume="full"),)},
        "VolumesHealthy",
        "False",
        ConditionReason.VOLUME_FILLING,
    ),
    (
        "rm",
        {"reports": (told(miner_report(), problems=[{"code": ProblemCode.VOLUME_READ_ONLY, "message": "m"}]),)},
        "VolumesHealthy",
        "False",
        ConditionReason.VOLUME_READ_ONLY,
    ),
    (
        "rm",
        {"reports": (told(miner_report(), problems=[{"code": ProblemCode.VOLUME_HANGS, "message": "m"}]),)},
        "VolumesHealthy",
        "False",
        ConditionReason.VOLUME_HANGS,
    ),
    ("rm", {"reports": (LOST,)}, "ClaimsHealthy", "False", ConditionReason.SESSION_LOST),
    (
        "rm",
        {"pods": (replace(POD, ready=False, problem="OOMKilled"), MINER_POD)},
        "Ready",
        "False",
        ConditionReason.PODS_NOT_READY,
    ),
    (
        "rm",
        {"rejections": {("Service", "x"): Rejection("it is another's", foreign=True)}},
        "Ready",
        "False",
        ConditionReason.FOREIGN_OBJECT,
    ),
    ("rm", {"prefix_owner": "team/eu-main"}, "Ready", "False", ConditionReason.PREFIX_IN_USE),
    (
        "rm",
        {"rejections": {("Service", "x"): Rejection("quota")}},
        "Stalled",
        "True",
        ConditionReason.API_SERVER_REJECTED,
    ),
    ("rm", {"relay_miner": changed(RM, "spec.chain.nodes", [])}, "Stalled", "True", ConditionReason.INVALID_SPEC),
    ("supplier", {"reports": LOADED}, "KeysLoaded", "True", ConditionReason.LOADED),
    ("supplier", {"reports": LOADED}, "Staked", "True", ConditionReason.STAKED),
    ("supplier", {"reports": LOADED}, "ClaimsHealthy", "True", ConditionReason.CLAIMS_HEALTHY),
    ("supplier", {"reports": LOADED}, "Ready", "True", ConditionReason.READY),
    ("supplier", {"reports": ()}, "Staked", "Unknown", ConditionReason.NO_REPORT),
    ("supplier", {"reports": ()}, "ClaimsHealthy", "Unknown", ConditionReason.NO_REPORT),
    ("supplier", {"reports": ()}, "KeysLoaded", "False", ConditionReason.LOADING_KEYS),
    ("supplier", {"reports": (), "relay_miner": paused()}, "KeysLoaded", "Unknown", ConditionReason.PAUSED),
    ("supplier", {"suppliers": (gone(ALICE),)}, "KeysLoaded", "False", ConditionReason.DRAINING),
    ("supplier", {"relay_miner": None}, "KeysLoaded", "False", ConditionReason.RELAY_MINER_MISSING),
    (
        "supplier",
        {"relay_miner": changed(RM, "spec.chain.nodes", [])},
        "KeysLoaded",
        "False",
        ConditionReason.RELAY_MINER_NOT_READY,
    ),
    (
        "supplier",
        {"secrets": {"alice-key": None}, "published": None},
        "KeysLoaded",
        "False",
        ConditionReason.SECRET_MISSING,
    ),
    ("supplier", with_secret(other="x"), "KeysLoaded", "False", ConditionReason.SECRET_KEY_MISSING),
    ("supplier", with_secret(hex="zz"), "KeysLoaded", "False", ConditionReason.KEY_MALFORMED),
    ("supplier", with_secret(hex=key_of("bob")), "KeysLoaded", "False", ConditionReason.ADDRESS_MISMATCH),
    (
        "supplier",
        sealed(seal(CONTROLLER.newest, BOB, key_of("alice"))),
        "KeysLoaded",
        "False",
        ConditionReason.SEALED_KEY_SCOPE_MISMATCH,
    ),
    (
        "supplier",
        sealed(seal(Controller.of([Controller.generate()]).newest, BOB, key_of("alice"))),
        "KeysLoaded",
        "False",
        ConditionReason.SEALING_KEY_NOT_FOUND,
    ),
    ("supplier", sealed(DAMAGED), "KeysLoaded", "False", ConditionReason.SEALED_KEY_INVALID),
    (
        "supplier",
        {"suppliers": (changed(ALICE, "spec.key", {"remote": {"publicKey": f"02{'11' * 32}"}}),)},
        "KeysLoaded",
        "False",
        ConditionReason.SIGNER_NOT_CONFIGURED,
    ),
    ("supplier", {"owners": {address("alice"): "another"}}, "KeysLoaded", "False", ConditionReason.KEY_IN_USE),
    ("supplier", {"reports": (miner_report(staked=False),)}, "Staked", "False", ConditionReason.NOT_STAKED),
    (
        "supplier",
        {"reports": (miner_report(stake={"services": ["eth"], "unstakeSessionEndHeight": 9}),)},
        "Staked",
        "False",
        ConditionReason.UNSTAKING,
    ),
    (
        "supplier",
        {
            "reports": (miner_report(stake={"services": []}),),
            "suppliers": (with_uid(changed(ALICE, "spec.services", ["eth"]), "alice"),),
        },
        "Staked",
        "False",
        ConditionReason.SERVICES_NOT_STAKED,
    ),
    (
        "supplier",
        {"reports": (miner_report(stake={"services": ["eth", "more"]}),)},
        "Staked",
        "True",
        ConditionReason.STAKED_SERVICE_NOT_CONFIGURED,
    ),
    (
        "supplier",
        {"reports": (miner_report(endpoint_problems=["http://a: away"]),)},
        "Staked",
        "True",
        ConditionReason.ENDPOINTS_BROKEN,
    ),
    ("supplier", {"reports": (LOST,)}, "ClaimsHealthy", "False", ConditionReason.SESSION_LOST),
    ("supplier", {"reports": (miner_report(balance_upokt=1),)}, "ClaimsHealthy", "False", ConditionReason.BALANCE_LOW),
    (
        "supplier",
        {"reports": (miner_report(public_key_on_chain=False),)},
        "ClaimsHealthy",
        "False",
        ConditionReason.PUBLIC_KEY_MISSING,
    ),
    ("rm", KEYLESS, "KeysLoaded", "False", ConditionReason.SUPPLIERS_NOT_READY),
    ("rm", KEYLESS, "Ready", "False", ConditionReason.SUPPLIERS_NOT_READY),
    ("rm", {"relay_miner": REDIS_IN_A_SECRET}, "Ready", "False", ConditionReason.REDIS_SECRET_MISSING),
]
ELSEWHERE = {
    "test_releases.py": {ConditionReason.CRD_OLDER, ConditionReason.CRD_NEWER},
    "test_rollout.py": {ConditionReason.OBSERVING_CANARY, ConditionReason.CANARY_FAILED},
    "test_operator_claim.py": {ConditionReason.OTHER_OPERATOR},
    "test_truthful_status.py": {ConditionReason.PROGRESS_DEADLINE_EXCEEDED},
    "test_update.py": {
        ConditionReason.UPDATE_QUEUED,
        ConditionReason.AWAITING_APPROVAL,
        ConditionReason.UPDATING,
        ConditionReason.UPDATE_FAILED,
    },
}
"""Reasons whose situations take more than a changed snapshot."""


def test_every_reason_is_given_in_some_situation():
    here = {row[-1] for row in SITUATIONS}
    assert here | frozenset().union(*ELSEWHERE.values()) == set(ConditionReason)
    assert not here & frozenset().union(*ELSEWHERE.values())
    for module, reasons in ELSEWHERE.items():
        text = (Path(__file__).parent / module).read_text()
        assert {r for r in reasons if f"Reason.{r.name}" not in text and f'"{r.value}"' not in text} == set()


@pytest.mark.parametrize(("of", "change", "condition", "status", "reason"), SITUATIONS)
def test_a_situation_is_told_by_its_reason(of, change, condition, status, reason):
    seen = snapshot(**change)
    decided = plan(seen)
    told_ = relay_miner_status(seen, decided) if of == "rm" else supplier_status(decided.key_checks[0], seen, decided)
    found = {row.type: row for row in told_.conditions}[condition]
    assert (found.status, found.reason) == (status, reason.value), found.message


ROTATED = Controller.of([*CONTROLLER.keys, Controller.generate()])
SEALED = sealed(seal(CONTROLLER.newest, replace(BOB, name="alice", address=address("alice")), key_of("alice")))
CHANGES = [*(row[1] for row in SITUATIONS), {**SEALED, "controller": ROTATED}]


@pytest.mark.parametrize("change", CHANGES)
def test_a_status_that_is_stored_is_not_changed_by_the_next_decision(change):
    seen = snapshot(**change)
    earlier = []
    for _ in range(3):
        decided = plan(seen)
        told_ = [as_status(supplier_status(check, seen, decided)) for check in decided.key_checks]
        suppliers = tuple({**s, "status": status} for s, status in zip(seen.suppliers, told_, strict=True))
        seen = replace(seen, suppliers=suppliers)
        if seen.relay_miner is not None:
            told_.append(as_status(relay_miner_status(seen, decided)))
            seen = replace(seen, relay_miner={**seen.relay_miner, "status": told_[-1]})
        earlier.append(told_)
    assert earlier[1] == earlier[2]
