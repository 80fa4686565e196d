"""A simulation that could not work is refused when it is on, and noted when it is off (SIM-03, SIM-04)."""

import pytest
from pydantic import ValidationError

from pocket.api.manifests import Manifests
from pocket.api.relayminer import RelayMiner
from pocket.api.simulation import Simulation
from pocket.protocol.rings import PLACEHOLDER_PUBLIC_KEY
from relayctl.config_checks import check_references
from resources import changed, relay_miner
from world import key

APP, GATEWAY = key("app").public_key.hex(), key("gateway").public_key.hex()
GOOD = {"keyId": "canary", "applicationPublicKey": APP, "gatewayPublicKeys": [GATEWAY]}
OFF_CURVE = "02" + "00" * 31 + "05"

BAD = [
    ([], "at least one identity"),
    ([GOOD | {"enabled": False}], "at least one identity"),
    ([GOOD, GOOD], "key id canary occurs twice"),
    ([GOOD | {"gatewayPublicKeys": [PLACEHOLDER_PUBLIC_KEY.hex()]}], "placeholder"),
    ([GOOD | {"applicationPublicKey": PLACEHOLDER_PUBLIC_KEY.hex()}], "placeholder"),
    ([GOOD | {"applicationPublicKey": OFF_CURVE}], "not a point of the curve"),
    ([GOOD | {"gatewayPublicKeys": ["02" + "ff" * 32]}], "not a point of the curve"),
    ([GOOD | {"gatewayPublicKeys": [APP]}], "occurs twice in its ring"),
    ([GOOD | {"gatewayPublicKeys": []}], "at least 1 item"),
    ([GOOD | {"gatewayPublicKeys": ["04" + "00" * 64]}], "compressed public key"),
    ([GOOD | {"notAfter": "tomorrow"}], "such as 2027-01-31T00:00:00Z"),
    ([GOOD | {"notAfter": "2027-13-31T00:00:00Z"}], "notAfter is not a valid date"),
]


@pytest.mark.parametrize(("identities", "told"), BAD)
def test_an_enabled_simulation_that_cannot_work_is_refused_in_words(identities, told):
    with pytest.raises(ValidationError, match=told):
        Simulation.model_validate({"enabled": True, "identities": identities})


def test_every_key_of_a_real_pair_is_a_point():
    rows = [GOOD | {"keyId": f"k{n}", "applicationPublicKey": key(f"a{n}").public_key.hex()} for n in range(16)]
    assert Simulation.model_validate({"enabled": True, "identities": rows}).problems() == []


def test_a_disabled_one_starts_and_validate_notes_what_is_wrong_with_it():
    off = {"simulation": {"identities": [GOOD | {"applicationPublicKey": OFF_CURVE}]}}
    miner = RelayMiner.model_validate(changed(relay_miner("ns"), "spec.relayer", off))
    found = [str(finding) for finding in check_references(Manifests((miner,), (), {}))]
    assert any("simulation, currently disabled" in row and "not a point" in row for row in found), found
