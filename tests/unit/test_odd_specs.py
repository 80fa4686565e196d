"""Whatever a definition of another release lets through: it is named in the status, and nothing else stops."""

from hypothesis import given, settings
from hypothesis import strategies as st

from example_counts import examples
from pocket.api.status import as_status
from pocket_operator.decide.object_cache import ObjectCache
from pocket_operator.decide.plan import plan
from pocket_operator.decide.relay_miner_status import relay_miner_status
from pocket_operator.decide.supplier_status import supplier_status
from snapshots import ALICE, snapshot, with_uid
from spec_sweep import BASES, cases

MINERS, SUPPLIERS = (list(cases(plural)) for plural in BASES)


@settings(max_examples=examples(60))
@given(st.sampled_from(MINERS))
def test_a_relay_miner_of_any_form_has_a_status(case):
    seen = snapshot(relay_miner=with_uid(case.resource(), "rm"), namespace="default")
    planned = plan(seen)
    assert as_status(relay_miner_status(seen, planned))
    assert [as_status(supplier_status(check, seen, planned)) for check in planned.key_checks]


@settings(max_examples=examples(40))
@given(st.sampled_from(SUPPLIERS))
def test_a_supplier_of_any_form_has_a_status_and_stops_no_other(case):
    cache, odd = ObjectCache(), with_uid(case.resource(), "odd")
    cache.put("Supplier", odd)
    seen = snapshot(suppliers=(odd, ALICE), namespace="default")
    planned = plan(seen)
    assert [as_status(supplier_status(check, seen, planned)) for check in planned.key_checks]
    assert planned.key_checks[1].good
