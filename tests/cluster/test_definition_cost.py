"""The rules of the definitions stay within what an API server lets them cost.

An API server refuses a definition whose rules cost too much for the largest resource: one rule more than 10 million
units, all of them more than 100 million. It does not report the costs of what it takes, so each rule is repeated until
the definition is refused, with the factor by which it is above the limit.
"""

import json
import re
from typing import Any

import pytest

from kube import CRDS
from pocket.api.crd import definitions
from pocket.kube.api_client import KubeApi, KubeError

MOST_USED = {"relayminers": 0.9, "suppliers": 0.3, "protectednamespaces": 0.2}
"""The part of a limit that may be used, by definition: RelayMiners have little left for further rules."""


def repeated(node: Any, times: int) -> Any:
    """Return a schema with each rule repeated, which multiplies its cost."""
    if isinstance(node, list):
        return [repeated(child, times) for child in node]
    if not isinstance(node, dict):
        return node
    found = {key: repeated(child, times) for key, child in node.items()}
    if isinstance(rules := found.get("x-kubernetes-validations"), list):
        found["x-kubernetes-validations"] = [
            row | {"rule": " && ".join([f"({row['rule']})"] * times), "message": row.get("message", "no")}
            for row in rules
        ]
    return found


async def used(api: KubeApi, plural: str) -> float:
    """Return which part of a limit the definition's costliest rule uses, or all of its rules if that is more."""
    definition = json.loads(json.dumps(definitions()[plural]))
    definition["spec"]["group"] = "cost.example"
    definition["metadata"] = {"name": f"{plural}.cost.example"}
    (version,) = definition["spec"]["versions"]
    schema = version["schema"]
    for times in (1, 2, 4, 8, 16):
        version["schema"] = repeated(schema, times)
        try:
            await api.call("POST", CRDS.path(""), body=definition, query={"dryRun": "All"})
        except KubeError as error:
            factors = re.findall(r"exceeds budget by factor of (?:more than )?([\d.]+)x", str(error))
            if not factors:
                raise
            return max(map(float, factors)) / times
    return 1 / times


@pytest.mark.parametrize("plural", definitions())
async def test_the_rules_of_a_definition_leave_room_within_the_limits(api, plural):
    assert await used(api, plural) <= MOST_USED[plural]
