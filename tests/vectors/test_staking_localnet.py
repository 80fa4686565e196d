"""Our localnet against the recorded staking transactions: the same records, balances and refusals."""

import pytest

from corpus import load, unhex
from pocket.chain import convert
from pocket.chain.comet import parse_time
from pocket.chain.model import Account
from pocket.protocol.pb import pocket_supplier_pb2 as supplier_pb
from pocket_localnet import encode
from pocket_localnet.genesis import Genesis
from pocket_localnet.local_chain import LocalChain

CASES = sorted(
    load("staking/transactions")["cases"] + load("staking/refusals")["cases"], key=lambda case: case["order"]
)
ACCOUNTS = load("staking/accounts")
NAMES = {row["name"]: row["address"] for row in ACCOUNTS["accounts"]}
IN_BLOCK = [case for case in CASES if case["execution"]]
CHECKED = [case for case in CASES if not case["execution"]]
# The real node's gas is not modelled, and denominations other than upokt do not exist here.
OTHER = {"gas-too-low-in-execution", "gas-too-low-for-check", "fee-other-denom"}


def ids(case):
    return case["id"]


def record(call):
    if call is None or call["status"] != "OK":
        return None
    return supplier_pb.QueryGetSupplierResponse.FromString(unhex(call["response"])).supplier


def chain_before(case):
    """Return a localnet in the state and at the height before a recorded transaction."""
    height = case["execution"]["height"] - 1 if case["execution"] else case["height_at_broadcast"]
    genesis = Genesis.model_validate(
        {
            "minimum_gas_price": "0.000001upokt",
            "services": [
                {"id": s if isinstance(s, str) else s["id"], "owner": NAMES["alice"]} for s in ACCOUNTS["services"]
            ],
            "shared_params": {
                "claim_window_close_offset_blocks": 8, "proof_window_close_offset_blocks": 8,
                "supplier_unbonding_period_sessions": 2,
            },
        }
    )  # fmt: skip
    chain = LocalChain(genesis, first_height=height)
    state = chain.state
    if case["execution"]:
        state.time_ns = parse_time(case["execution"]["previous_block_time"]).nanoseconds
    balances = case["balances"].get("before") or case["balances"].get("amounts") or {}
    signer = NAMES[case["tx"]["signer"]]
    for name, amount in balances.items():
        address = NAMES.get(name)
        if address:
            state.balances[address] = int(amount)
            state.accounts.setdefault(address, Account(address, 900 + len(state.accounts), 0, None))
    if account := case["account_before"]:
        state.accounts[signer] = Account(signer, account["account_number"], account["sequence"], None)
    else:
        state.accounts.pop(signer, None)
    if (known := record(case["supplier_before"])) is not None:
        state.suppliers[known.operator_address] = convert.supplier(known)
    for message in case["messages"]:  # another one of the same recorded chain
        if message["json"]["operator_address"] == NAMES["alice"] != NAMES[case["operator"]]:
            found = record(next(c for c in CASES if c["id"] == "stake-new-self")["supplier_after"])
            state.suppliers[NAMES["alice"]] = convert.supplier(found)
    chain._check_state = state.copy()
    return chain


@pytest.mark.parametrize("case", [c for c in IN_BLOCK if c["id"] not in OTHER], ids=ids)
def test_a_recorded_transaction_has_the_recorded_result(case):
    chain = chain_before(case)
    assert chain.broadcast(unhex(case["tx"]["tx_raw"])).code == 0
    refused = case["execution"]["code"]
    if not refused:
        assert chain.simulate(unhex(case["tx"]["tx_raw"])) > 0
    block = chain.step(parse_time(case["execution"]["block_time"]).nanoseconds)
    result = block.transactions[0].result
    assert (result.code, result.codespace) == (refused, case["execution"]["codespace"])
    if refused and case["id"] != "unstake-by-third-party":  # its text shows the whole record
        assert result.log.split(" [")[0] == case["execution"]["log"].split(" [")[0]
    changes = {n: int(v) for n, v in case["balances"]["change"].items() if n in NAMES}
    before = {n: int(case["balances"]["before"].get(n, 0)) for n in changes}
    assert {n: chain.state.balances.get(NAMES[n], 0) - before[n] for n in changes} == changes
    operator = NAMES[case["operator"]]
    wanted = record(case["supplier_after"])
    if wanted is None:
        assert operator not in chain.state.suppliers
        return
    shown = encode.supplier(chain.state.suppliers[operator], chain.height)
    assert shown == wanted


@pytest.mark.parametrize("case", [c for c in CHECKED if c["id"] not in OTHER and c["broadcast"]], ids=ids)
def test_what_the_check_refuses_is_refused_with_the_recorded_code(case):
    chain = chain_before(case)
    if case["id"] == "unordered-expired":
        chain.state.time_ns = chain._check_state.time_ns = 2 * 10**18
    result = chain.broadcast(unhex(case["tx"]["tx_raw"]))
    told = case["broadcast"]
    assert (result.code, result.codespace) == (told["tx_code"], told["codespace"])
