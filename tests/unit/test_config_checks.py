"""`relayctl config validate`: what is wrong is said before it is applied."""

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from pocket.api.manifests import load_manifests
from pocket.chain.model import ServiceConfig
from pocket.chain.model import StakedSupplier as Staked
from relayctl.config_checks import Level, check_account, check_references, check_stake
from relayctl.main import main

TRIAL = Path(__file__).resolve().parents[2] / "manifests/samples/trial"


@pytest.fixture
def manifests():
    return load_manifests([TRIAL])


def staked(address, services=("eth", "weather"), kinds=(3, 4), ends=0):
    history = tuple(
        ServiceConfig(service, 1, 0, endpoints=tuple((kind, "http://x") for kind in kinds)) for service in services
    )
    return Staked(address, address, 10, frozenset(services), ends, history)


def texts(findings, level=Level.ERROR):
    return " / ".join(finding.text for finding in findings if finding.level is level)


def test_the_samples_are_without_fault(manifests):
    assert check_references(manifests) == []
    done = CliRunner().invoke(main, ["config", "validate", str(TRIAL)])
    assert (done.exit_code, done.output) == (0, "1 RelayMiners and 3 Suppliers: 0 errors, 0 notes.\n")


def test_resources_that_do_not_fit_each_other_are_named(manifests):
    twice = replace(manifests, suppliers=(*manifests.suppliers, manifests.suppliers[0]))
    assert "is also the address of Supplier alice" in texts(check_references(twice))
    alone = replace(manifests, relay_miners=())
    assert "no RelayMiner trial" in texts(check_references(alone))
    bare = replace(manifests, secrets={})
    assert "Secret alice-key must exist" in texts(check_references(bare), Level.NOTE)
    assert "sealed to the operator" in texts(check_references(bare), Level.NOTE)


def test_a_sealed_key_is_opened_where_its_sealing_key_is_among_the_files(manifests):
    renamed = [
        s.model_copy(update={"metadata": s.metadata.model_copy(update={"name": "dave"})}) if s.spec.key.sealed else s
        for s in manifests.suppliers
    ]
    found = check_references(replace(manifests, suppliers=tuple(renamed)))
    assert "spec.key.sealed: sealed for another name than dave" in texts(found)


@pytest.mark.parametrize(("on_chain", "level", "said"), [
    (None, Level.ERROR, "is not staked"),
    ({"services": ("eth",)}, Level.NOTE, "weather is served here but not staked"),
    ({"services": ("eth", "weather", "solana")}, Level.ERROR, "solana is staked but not served"),
    ({"kinds": (4,)}, Level.ERROR, "service eth is staked with rest, which has no backend"),
    ({"ends": 60}, Level.NOTE, "its last session ends at height 60"),
])  # fmt: skip
def test_a_stake_is_compared_with_what_is_served(manifests, on_chain, level, said):
    supplier = next(s for s in manifests.suppliers if not s.spec.services)
    found = check_stake(
        supplier,
        manifests.relay_miners[0],
        None if on_chain is None else staked(supplier.spec.operator_address, **on_chain),
    )
    assert said in texts(found, level)


@pytest.mark.parametrize(("balance", "least", "public_key", "level", "said"), [
    (10**6, 10, True, Level.ERROR, ""),
    (0, 10, True, Level.ERROR, "0 upokt, less than 1 POKT"),
    (999_999, 10, True, Level.NOTE, "999999 upokt"),
    (10**6, 10, False, Level.ERROR, "no public key on chain"),
    (10**6, 11, True, Level.ERROR, "below the minimum of 11"),
])  # fmt: skip
def test_funds_stake_and_public_key_are_looked_at(manifests, balance, least, public_key, level, said):
    supplier = manifests.suppliers[0]
    found = check_account(supplier, balance, least, staked(supplier.spec.operator_address), public_key=public_key)
    assert said in texts(found, level)
    assert bool(found) == bool(said)


def test_a_file_that_cannot_be_used_is_an_error_in_words(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text((TRIAL / "relayminer.yaml").read_text().replace("jsonRpc:", "jsonrpc:"))
    done = CliRunner().invoke(main, ["config", "validate", str(file)])
    assert done.exit_code == 1
    assert "jsonrpc" in done.output
    empty = tmp_path / "empty.yaml"
    empty.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n")
    assert "neither a RelayMiner" in CliRunner().invoke(main, ["config", "validate", str(empty)]).output


def test_nodes_and_backends_that_cannot_be_reached_are_named(tmp_path):
    file = tmp_path / "closed.yaml"
    text = (TRIAL / "relayminer.yaml").read_text()
    for name in ("localnet:9090", "localnet:26657", "backend:8545"):
        text = text.replace(name, "127.0.0.1:1")
    file.write_text(text)
    done = CliRunner().invoke(main, ["config", "validate", str(file), "--check-chain", "--timeout", "2"])
    assert done.exit_code == 1
    assert "no chain node answers" in done.output
    assert "http://127.0.0.1:1 cannot be reached" in done.output
