"""A declared stake takes from another Supplier what it does not set, and nothing else."""

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from pocket.api.stake import StakeSpec
from pocket.staking.declared import StakeDefaultsMissing, declared_stake, with_defaults
from relayctl.main import main
from resources import supplier
from world import address

ALICE, BOB, CAROL = map(address, ("alice", "bob", "carol"))


def service(name="eth", **more):
    return {"id": name, "endpoints": [{"url": f"https://{name}.example", "rpcType": "jsonRpc"}], **more}


def shares(*rows):
    return [{"address": who, "percent": percent} for who, percent in rows]


BASE = StakeSpec.model_validate(
    {
        "policy": "Apply", "budgetUpokt": 9, "amountUpokt": 7, "owner": CAROL,
        "services": [service(), service("sol", revenueShares=shares((CAROL, 100)))],
        "revenueShares": shares((CAROL, 40), (BOB, 60)),
    }
)  # fmt: skip


def own(**more):
    return StakeSpec.model_validate({"amountUpokt": 5, "defaultsFrom": {"name": "base"}, **more})


def test_services_and_shares_are_taken_and_named():
    spec, inherited = with_defaults(own(), BASE)
    assert inherited == ("services", "revenueShares")
    found = declared_stake(BOB, spec)
    assert (found.amount_upokt, found.owner, found.operator) == (5, BOB, BOB)
    assert [(row.service_id, row.revenue_share) for row in found.services] == [
        ("eth", ((CAROL, 40), (BOB, 60))), ("sol", ((CAROL, 100),)),
    ]  # fmt: skip


@pytest.mark.parametrize(("owner", "paid"), [(None, BOB), (CAROL, CAROL)])
def test_what_no_share_names_is_the_owners(owner, paid):
    spec = StakeSpec.model_validate({"amountUpokt": 5, "services": [service()]} | ({"owner": owner} if owner else {}))
    assert [row.revenue_share for row in declared_stake(BOB, spec).services] == [((paid, 100),)]


def test_what_is_set_stays():
    spec, inherited = with_defaults(own(services=[service("base")], revenueShares=shares((BOB, 100))), BASE)
    assert inherited == ()
    assert [row.id for row in spec.services] == ["base"]


def test_own_shares_replace_those_of_taken_services():
    spec, inherited = with_defaults(own(revenueShares=shares((BOB, 100))), BASE)
    assert inherited == ("services",)
    assert {row.revenue_share for row in declared_stake(BOB, spec).services} == {((BOB, 100),)}


def test_without_a_reference_nothing_is_taken():
    spec = StakeSpec(amount_upokt=5)
    assert with_defaults(spec, BASE) == (spec, ())


def test_a_missing_supplier_is_named():
    with pytest.raises(StakeDefaultsMissing, match=r"Supplier base, which spec\.stake\.defaultsFrom names"):
        with_defaults(own(), None)


@given(st.booleans(), st.booleans(), st.sampled_from(["Observe", "Plan"]), st.integers(1, 10**12))
def test_money_owner_and_policy_are_never_taken(services, chosen, policy, amount):
    more = {"services": [service()]} if services else {}
    more |= {"revenueShares": shares((BOB, 100))} if chosen else {}
    before = own(policy=policy, **more).model_copy(update={"amount_upokt": amount})
    after, _ = with_defaults(before, BASE)
    kept = set(StakeSpec.model_fields) - {"services", "revenue_shares"}
    assert {name: getattr(after, name) for name in kept} == {name: getattr(before, name) for name in kept}


def test_the_command_line_takes_them_too(tmp_path):
    body = supplier("ns", stake={"amountUpokt": 5, "defaultsFrom": {"name": "base"}})
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(body))
    done = CliRunner().invoke(main, ["stake", "plan", "-f", str(tmp_path), "--grpc", "grpc://127.0.0.1:1"])
    assert done.exit_code == 1
    assert "Supplier base, which spec.stake.defaultsFrom names, does not exist" in done.output


@pytest.mark.parametrize(
    ("suppliers", "words", "said"),
    [
        ([supplier("ns")], (), "no Supplier in these files has spec.stake"),
        (
            [supplier("ns", name, stake={"amountUpokt": 1}) for name in ("bob", "alice")],
            (),
            "Those with spec.stake: alice, bob",
        ),
        ([supplier("ns", stake={"amountUpokt": 1})], ("--name", "bob"), "with --name. Those with spec.stake: alice"),
    ],
)
def test_a_plan_without_its_supplier_says_which_there_are(tmp_path, suppliers, words, said):
    (tmp_path / "s.yaml").write_text(yaml.safe_dump_all(suppliers))
    done = CliRunner().invoke(
        main, ["stake", "plan", "-f", str(tmp_path / "s.yaml"), "--grpc", "grpc://127.0.0.1:1", *words]
    )
    assert (done.exit_code, said in done.output) == (1, True), done.output


def test_a_service_that_is_declared_twice_is_named():
    with pytest.raises(ValueError, match="service sol occurs twice"):
        own(services=[service(), service("sol"), service("sol")])
