"""Whatever a definition of another release lets through: it is named in the status, and nothing else stops."""

import re
from typing import Annotated

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from example_counts import examples
from pocket.api.base import problem_of
from pocket.api.crd import definitions
from pocket.api.relayminer import RelayMiner
from pocket.api.schema import text
from pocket.api.status import as_status
from pocket_operator.decide.object_cache import ObjectCache
from pocket_operator.decide.plan import plan
from pocket_operator.decide.relay_miner_status import relay_miner_status
from pocket_operator.decide.supplier_status import supplier_status
from resources import changed, relay_miner
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


def own(node, names):
    """Return the patterns or rules of a schema without those of Kubernetes' types, which Python does not check."""
    if isinstance(node, list):
        return [pattern for child in node for pattern in own(child, names)]
    if not isinstance(node, dict) or "externalDocs" in node:
        return []
    here = [node[name] for name in names if isinstance(node.get(name), str)]
    return here + [pattern for child in node.values() for pattern in own(child, names)]


@pytest.mark.parametrize(("name", "classes"), [("pattern", r"\\[sSwWdD]"), ("rule", r"\\[sS]")])
def test_no_pattern_has_a_class_that_is_another_one_in_python_than_in_the_api_server(name, classes):
    """In Python, a non-breaking space is one of the spaces, and an Arabic digit is a digit."""
    schema = definitions()["relayminers"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    patterns = own(list(schema["properties"].values()), [name])
    assert len(patterns) > 10
    assert [pattern for pattern in patterns if re.search(classes, pattern)] == []


def test_a_text_is_matched_as_the_api_server_matches_it():
    value = TypeAdapter(Annotated[str, *text(r"[\d\w]+", "must be a word", longest=9)])
    assert value.validate_python("a1_") == "a1_"
    for other in ("\u0661", "\u00e9"):
        with pytest.raises(ValidationError, match="must be a word"):
            value.validate_python(other)


def with_block(**block):
    return changed(relay_miner("team"), "spec.networkPolicy", {"enabled": True, "relaysFrom": [{"ipBlock": block}]})


@pytest.mark.parametrize(
    ("cidr", "hole"),
    [("10.0.0.0/8", "11.0.0.0/9"), ("10.0.0.0/8", "10.0.0.0/8"), ("10.0.0.0/8", "0.0.0.0/0"), ("::/0", "10.0.0.0/8")],
)
def test_an_exception_outside_of_its_block_is_refused_with_its_path(cidr, hole):
    with pytest.raises(ValidationError) as error:
        RelayMiner.model_validate(with_block(cidr=cidr, **{"except": [hole]}))
    assert problem_of(error.value).startswith(f"spec.networkPolicy.relaysFrom.0: ipBlock.except: {hole} is not a part")


def test_exceptions_within_their_block_are_taken():
    for cidr, hole in (("10.0.0.0/8", "10.1.0.0/16"), ("10.0.0.1/8", "10.0.0.1/32"), ("fd00::/8", "fd00:1::/32")):
        RelayMiner.model_validate(with_block(cidr=cidr, **{"except": [hole]}))
    RelayMiner.model_validate(with_block(cidr="not an address", **{"except": ["10.0.0.0/8", "x"]}))
