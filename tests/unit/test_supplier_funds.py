"""What is left of a supplier's balance and stake, as metrics and reports show it."""

from dataclasses import replace

from prometheus_client import REGISTRY

from direct import DirectChain
from pocket_localnet.local_chain import LocalChain
from pocket_miner import miner_metrics
from pocket_miner.status.report import Reports
from pocket_miner.storage.audit import Audit
from pocket_miner.suppliers.factory import SupplierFactory
from world import World, address


async def test_balances_and_the_runway_of_stakes_are_told_and_forgotten_with_the_supplier(tmp_path):
    world = World(suppliers=("alice",))
    chain = LocalChain(world.genesis(supplier_min_stake=10**9 - 2_500_000))
    suppliers = SupplierFactory.__new__(SupplierFactory)
    suppliers.chain = DirectChain(chain)
    audit = Audit(tmp_path / "audit.sqlite")
    suppliers.reports = Reports(audit)
    await suppliers.refresh_funds([address("alice"), address("nobody")])

    def told(name):
        return REGISTRY.get_sample_value(name, {"supplier": address("alice")})

    assert told("pocket_miner_balance_upokt") == 10_000_000_000
    assert told("pocket_miner_stake_runway_penalties") == 2, "2.5 penalties of 1 POKT"
    row = suppliers.reports.rows()[address("alice")]
    assert (row["balance_upokt"], row["public_key_on_chain"]) == (10_000_000_000, True)
    chain.state.supplier_min_stake = 2 * 10**9
    await suppliers.refresh_funds([address("alice")])
    assert told("pocket_miner_stake_runway_penalties") == 0, "the stake is below the minimum"
    miner_metrics.forget_funds(address("alice"))
    miner_metrics.forget_funds(address("alice"))
    assert told("pocket_miner_balance_upokt") is None
    chain.state.proof_params = replace(chain.state.proof_params, proof_missing_penalty_upokt=0)
    await suppliers.refresh_funds([address("alice")])
    assert told("pocket_miner_stake_runway_penalties") is None, "nothing is taken, so there is no end"
    miner_metrics.forget_funds(address("alice"))
    audit.close()
