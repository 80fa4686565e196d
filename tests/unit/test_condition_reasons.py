"""Every reason that the operator can give is given in some situation, on the condition that it belongs to."""

from dataclasses import replace
from pathlib import Path

import pytest

from pocket.api.problems import ProblemCode
from pocket.keys.sealed_box import Controller, Subject, seal
from pocket_operator.decide.plan import plan
from pocket_operator.decide.pod_report import Report
from pocket_operator.decide.reasons import Reason
from pocket_operator.decide.relay_miner_status import relay_miner_status
from pocket_operator.decide.snapshot import SecretView
from pocket_operator.decide.supplier_status import supplier_status
from resources import address, changed, key_of
from snapshots import ALICE, MINER_POD, POD, RM, gone, miner_report, relayer_report, snapshot, with_uid

DIGESTS = plan(snapshot()).digests
ALL_WELL = (relayer_report(address("alice")), miner_report())


def loaded(*reports):
    """The reports of pods that have the published keys."""
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
CONTROLLER = Controller.of([Controller.fresh()])
BOB = Subject("ns", "bob", address("bob"))


DAMAGED = seal(CONTROLLER.newest, BOB, key_of("alice"))
DAMAGED = DAMAGED[:100] + ("B" if DAMAGED[100] == "A" else "A") + DAMAGED[101:]


def sealed(text):
    """A Supplier with a sealed key."""
    supplier = with_uid(changed(ALICE, "spec.key", {"sealed": text}), "alice")
    return {"suppliers": (supplier,), "controller": CONTROLLER, "published": None}


LOADED = loaded(*ALL_WELL)
NONE = {"suppliers": (), "owners": {}}
LOST = miner_report(lost_recently=1)
# (of the RelayMiner or the Supplier, changes of the snapshot, condition, status, reason)
SITUATIONS = [
    ("rm", {"reports": LOADED}, "KeysLoaded", "True", Reason.LOADED),
    ("rm", {"reports": LOADED}, "RedisReachable", "True", Reason.REACHABLE),
    ("rm", {"reports": LOADED}, "ChainReachable", "True", Reason.REACHABLE),
    ("rm", {"reports": LOADED}, "ClaimsHealthy", "True", Reason.CLAIMS_SETTLE),
    ("rm", {"reports": LOADED}, "Paused", "False", Reason.NOT_PAUSED),
    ("rm", {"reports": LOADED}, "Stalled", "False", Reason.NOT_STALLED),
    ("supplier", {"reports": LOADED}, "Reconciling", "False", Reason.NOT_RECONCILING),
    ("rm", {"reports": LOADED}, "SuppliersServed", "True", Reason.ALL_SERVED),
    ("rm", {"reports": ()}, "SuppliersServed", "False", Reason.LOADING_KEYS),
    ("rm", {"reports": loaded(relayer_report(address("alice")), miner_report(owned=()))},
     "SuppliersServed", "False", Reason.SUPPLIERS_NOT_SERVED),
    ("rm", NONE, "SuppliersServed", "False", Reason.NO_SUPPLIERS),
    ("rm", {"relay_miner": gone(RM)}, "SuppliersServed", "False", Reason.DRAINING),
    ("rm", {"reports": ()}, "RedisReachable", "Unknown", Reason.NO_REPORT),
    ("rm", {"reports": ()}, "ChainReachable", "Unknown", Reason.NO_REPORT),
    ("rm", {"reports": ()}, "ClaimsHealthy", "Unknown", Reason.NO_REPORT),
    ("rm", {"reports": (miner_report(owned=()),)}, "ClaimsHealthy", "Unknown", Reason.NO_REPORT),
    ("rm", {"reports": loaded(relayer_report())[:1]}, "KeysLoaded", "False", Reason.LOADING_KEYS),
    ("rm", {"reports": (), "relay_miner": paused()}, "KeysLoaded", "Unknown", Reason.NO_REPORT),
    ("rm", {"reports": (), "relay_miner": paused()}, "Paused", "True", Reason.PAUSED),
    ("rm", {"reports": (), "relay_miner": paused()}, "Ready", "Unknown", Reason.PAUSED),
    ("rm", NONE, "KeysLoaded", "False", Reason.NO_SUPPLIERS),
    ("rm", NONE, "Ready", "False", Reason.NO_SUPPLIERS),
    ("rm", {}, "Ready", "False", Reason.ROLLING_OUT),
    ("rm", {"relay_miner": gone(RM)}, "Reconciling", "True", Reason.DRAINING),
    ("rm", {"reports": (told(miner_report(), redis="away"),)}, "RedisReachable", "False", Reason.REDIS_UNREACHABLE),
    (
        "rm", {"reports": (told(miner_report(), problems=[{"code": ProblemCode.NO_NEW_BLOCK, "message": "m"}]),)},
        "ChainReachable", "False", Reason.CHAIN_UNREACHABLE,
    ),
    ("rm", {"reports": (note(Reason.GAS_PRICE_TOO_LOW),)}, "ChainReachable", "False", Reason.GAS_PRICE_TOO_LOW),
    ("rm", {"reports": (note(Reason.CLOCK_SKEWED),)}, "ChainReachable", "True", Reason.CLOCK_SKEWED),
    ("rm", {"reports": (note(Reason.NODES_DIFFER),)}, "ChainReachable", "True", Reason.NODES_DIFFER),
    ("rm", {"reports": LOADED}, "VolumesHealthy", "True", Reason.VOLUMES_FINE),
    ("rm", {"reports": LOADED}, "SchemaCurrent", "True", Reason.SCHEMA_MATCHES),
    ("rm", {"reports": (told(miner_report(), volume="full"),)}, "VolumesHealthy", "False", Reason.VOLUME_FILLING),
    (
        "rm", {"reports": (told(miner_report(), problems=[{"code": ProblemCode.VOLUME_READ_ONLY, "message": "m"}]),)},
        "VolumesHealthy", "False", Reason.VOLUME_READ_ONLY,
    ),
    ("rm", {"reports": (LOST,)}, "ClaimsHealthy", "False", Reason.SESSION_LOST),
    (
        "rm", {"pods": (replace(POD, ready=False, problem="OOMKilled"), MINER_POD)},
        "Ready", "False", Reason.PODS_NOT_READY,
    ),
    ("rm", {"refusals": {("Service", "x"): "foreign: it is another's"}}, "Ready", "False", Reason.FOREIGN_OBJECT),
    ("rm", {"refusals": {("Service", "x"): "quota"}}, "Stalled", "True", Reason.REFUSED_BY_API),
    ("rm", {"relay_miner": changed(RM, "spec.chain.nodes", [])}, "Stalled", "True", Reason.INVALID_SPEC),
    ("supplier", {"reports": LOADED}, "KeysLoaded", "True", Reason.LOADED),
    ("supplier", {"reports": LOADED}, "Staked", "True", Reason.STAKED),
    ("supplier", {"reports": LOADED}, "ClaimsHealthy", "True", Reason.CLAIMS_SETTLE),
    ("supplier", {"reports": LOADED}, "Ready", "True", Reason.ALL_WELL),
    ("supplier", {"reports": ()}, "Staked", "Unknown", Reason.NO_REPORT),
    ("supplier", {"reports": ()}, "ClaimsHealthy", "Unknown", Reason.NO_REPORT),
    ("supplier", {"reports": ()}, "KeysLoaded", "False", Reason.LOADING_KEYS),
    ("supplier", {"reports": (), "relay_miner": paused()}, "KeysLoaded", "Unknown", Reason.PAUSED),
    ("supplier", {"suppliers": (gone(ALICE),)}, "KeysLoaded", "False", Reason.DRAINING),
    ("supplier", {"relay_miner": None}, "KeysLoaded", "False", Reason.RELAY_MINER_MISSING),
    (
        "supplier", {"relay_miner": changed(RM, "spec.chain.nodes", [])},
        "KeysLoaded", "False", Reason.RELAY_MINER_NOT_READY,
    ),
    ("supplier", {"secrets": {"alice-key": None}, "published": None}, "KeysLoaded", "False", Reason.SECRET_MISSING),
    ("supplier", with_secret(other="x"), "KeysLoaded", "False", Reason.SECRET_KEY_MISSING),
    ("supplier", with_secret(hex="zz"), "KeysLoaded", "False", Reason.KEY_MALFORMED),
    ("supplier", with_secret(hex=key_of("bob")), "KeysLoaded", "False", Reason.ADDRESS_MISMATCH),
    ("supplier", sealed(seal(CONTROLLER.newest, BOB, key_of("alice"))), "KeysLoaded", "False", Reason.SEAL_FOR_ANOTHER),
    (
        "supplier", sealed(seal(Controller.of([Controller.fresh()]).newest, BOB, key_of("alice"))),
        "KeysLoaded", "False", Reason.SEAL_KEY_UNKNOWN,
    ),
    ("supplier", sealed(DAMAGED), "KeysLoaded", "False", Reason.SEAL_BROKEN),
    ("supplier", {"owners": {address("alice"): "another"}}, "KeysLoaded", "False", Reason.KEY_IN_USE),
    ("supplier", {"reports": (miner_report(staked=False),)}, "Staked", "False", Reason.NOT_STAKED),
    (
        "supplier", {"reports": (miner_report(stake={"services": ["eth"], "unstakeSessionEndHeight": 9}),)},
        "Staked", "False", Reason.UNSTAKING,
    ),
    (
        "supplier", {
            "reports": (miner_report(stake={"services": []}),),
            "suppliers": (with_uid(changed(ALICE, "spec.services", ["eth"]), "alice"),),
        }, "Staked", "False", Reason.SERVICES_NOT_STAKED,
    ),
    (
        "supplier", {"reports": (miner_report(stake={"services": ["eth", "more"]}),)},
        "Staked", "True", Reason.STAKED_BEYOND,
    ),
    (
        "supplier", {"reports": (miner_report(endpoint_problems=["http://a: away"]),)},
        "Staked", "True", Reason.ENDPOINTS_BROKEN,
    ),
    ("supplier", {"reports": (LOST,)}, "ClaimsHealthy", "False", Reason.SESSION_LOST),
    ("supplier", {"reports": (miner_report(balance_upokt=1),)}, "ClaimsHealthy", "False", Reason.BALANCE_LOW),
    (
        "supplier", {"reports": (miner_report(public_key_on_chain=False),)},
        "ClaimsHealthy", "False", Reason.PUBLIC_KEY_MISSING,
    ),
    ("rm", KEYLESS, "KeysLoaded", "False", Reason.SUPPLIERS_WAIT),
    ("rm", KEYLESS, "Ready", "False", Reason.SUPPLIERS_WAIT),
    ("rm", {"relay_miner": REDIS_IN_A_SECRET}, "Ready", "False", Reason.REDIS_SECRET_MISSING),
]  # fmt: skip
ELSEWHERE = {
    "test_releases.py": {Reason.CRD_OLDER, Reason.CRD_NEWER},
    "test_rollout.py": {Reason.OBSERVING_CANARY, Reason.CANARY_FAILED},
}
"""Reasons whose situations take more than a changed snapshot."""


def test_every_reason_is_given_in_some_situation():
    here = {row[-1] for row in SITUATIONS}
    assert here | frozenset().union(*ELSEWHERE.values()) == set(Reason)
    assert not here & frozenset().union(*ELSEWHERE.values())
    for module, reasons in ELSEWHERE.items():
        text = (Path(__file__).parent / module).read_text()
        assert {r for r in reasons if f"Reason.{r.name}" not in text and f'"{r.value}"' not in text} == set()


@pytest.mark.parametrize(("of", "change", "condition", "status", "reason"), SITUATIONS)
def test_a_situation_is_told_by_its_reason(of, change, condition, status, reason):
    seen = snapshot(**change)
    decided = plan(seen)
    told_ = relay_miner_status(seen, decided) if of == "rm" else supplier_status(decided.findings[0], seen, decided)
    found = {row.type: row for row in told_.conditions}[condition]
    assert (found.status, found.reason) == (status, reason.value), found.message
