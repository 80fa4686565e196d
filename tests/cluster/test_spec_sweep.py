"""Fields with values that they cannot have, or hardly: refused in words that help, or taken and brought about."""

import random

import pytest

from example_counts import examples
from pocket.api.relayminer import RelayMiner
from pocket.api.supplier import Supplier
from pocket.kube.api_client import KubeApi, KubeError, ResourceKind
from pocket.runtime.concurrency import map_bounded
from pocket_operator.resources import desired
from pocket_operator.resources.context import Context, Images
from pocket_operator.resources.kinds import BY_KIND, RELAY_MINERS, SUPPLIERS
from spec_sweep import BASES, Case, cases

STRICT = {"fieldValidation": "Strict", "dryRun": "All"}
MODELS = {RELAY_MINERS: RelayMiner, SUPPLIERS: Supplier}


def children(made):
    """Return what follows from a RelayMiner, by kind and name."""
    parsed = RelayMiner.model_validate({key: part for key, part in made.items() if key != "status"})
    found = {}
    for child in desired(Context(parsed, "uid", Images(), "default", capabilities=frozenset({"HTTPRoute"}))):
        child["metadata"].pop("ownerReferences", None)
        found[child["kind"], child["metadata"]["name"]] = child
    return found


async def problem_of(api: KubeApi, kind: ResourceKind, case: Case, usual) -> str:
    """Return what is wrong with the API server's answer, empty if nothing is.

    `usual` are the children of the resource without the case.
    """
    try:
        made = await api.call("POST", kind.path("default"), body=case.resource(), query=STRICT)
    except KubeError as error:
        if error.status not in (400, 422):
            return f"refused with {error.status}: {error}"
        # A list that is too short or has an entry twice may be refused by a rule of what it belongs to.
        named = {case.field.rpartition(".")[2], case.field.rpartition("[")[0], case.field.rpartition(".")[0]} - {""}
        return "" if any(name in str(error) for name in named) else f"refused without its field: {error}"
    try:
        MODELS[kind].model_validate({key: part for key, part in made.items() if key != "status"})
        after = children(made) if kind is RELAY_MINERS else {}
    except ValueError as error:
        return f"taken though the operator refuses it: {error}"
    for place, child in after.items():
        if child == usual.get(place) or place[0] == "HTTPRoute":  # the control plane has no Gateway API
            continue
        try:
            await api.call("POST", BY_KIND[place[0]].path("default"), body=child, query={"dryRun": "All"})
        except KubeError as error:
            return f"taken though its {place[0]} is refused: {error}"
    return ""


@pytest.mark.parametrize(("kind", "share"), [(RELAY_MINERS, 150), (SUPPLIERS, 50)], ids=["relayminers", "suppliers"])
async def test_odd_fields_are_refused_by_name_or_brought_about(api, kind, share):
    """EXAMPLES=20 tries all of them."""
    usual = {}
    for base in BASES[kind.plural]:
        made = await api.call("POST", kind.path("default"), body=base, query=STRICT)
        usual[id(base)] = children(made) if kind is RELAY_MINERS else {}

    async def one(case: Case) -> str:
        found = await problem_of(api, kind, case, usual[id(case.base)])
        return f"{case.field} = {str(case.value)[:60]!r}: {found[:400]}" if found else ""

    rows = list(cases(kind.plural))
    chosen = random.Random(1).sample(rows, min(examples(share), len(rows)))
    assert [row for row in await map_bounded(one, chosen, 8) if row] == []
