"""The recorded sessions: our relay checks, trie, proof and localnet against a real chain's."""

import json
from dataclasses import replace

import pytest

from corpus import unhex
from pocket.chain.settlement_event import CLAIM_SETTLED, claim_end
from pocket.protocol.claims.proof_requirement import proof_path
from pocket.protocol.claims.rewards import supplier_reward_upokt
from pocket.protocol.crypto.ecdsa import PrivateKey, verify_signature
from pocket.protocol.crypto.ring import verify_ring_signature
from pocket.protocol.relays.difficulty import is_applicable
from pocket.protocol.relays.messages import Relay, decode_relay_request, decode_relay_response, relay_hash
from pocket.protocol.rings import ring_addresses, ring_keys
from pocket.protocol.smst.bulk import LeafContent, LeafSet
from pocket.protocol.smst.digest import leaf_digest, path_of
from pocket.protocol.smst.verify import verify_closest
from pocket.protocol.transactions.build import Timestamp, TransactionPlan, create_claim_message, sign_transaction
from pocket_localnet.local_chain import LocalChain
from pocket_miner.submission.gas import CLAIM_GAS, PROOF_GAS, PROOF_GAS_PER_BYTE, typical_gas
from recorded import claim_key, recorded_chain, session_records, sessions, settlements_of, times

RECORDS = sessions()
SUPPLIERS = [(record, supplier) for record in RECORDS for supplier in record["suppliers"]]
each_session = pytest.mark.parametrize("record", RECORDS, ids=lambda record: str(record["id"]))
each_supplier = pytest.mark.parametrize(
    ("record", "supplier"), SUPPLIERS, ids=[f"{r['id']}-{s['operator_address'][-6:]}" for r, s in SUPPLIERS]
)


def mined(record, supplier):
    """Path → leaf of all recorded relays below the target."""
    units = record["compute_units_per_relay"]
    leaves = {}
    for row in supplier["relays"]:
        relay = Relay(decode_relay_request(unhex(row["request"])), decode_relay_response(unhex(row["mined_response"])))
        data = relay.encode()
        assert relay_hash(data).hex() == row["relay_hash"]
        assert is_applicable(relay_hash(data), unhex(record["target_hash"])) == row["mined"]
        if row["mined"]:
            leaves[path_of(relay_hash(data))] = LeafContent(data, int(units))
    return leaves


def leaf_set(leaves):
    return LeafSet([(p, leaf_digest(p, leaf.value, leaf.weight)) for p, leaf in sorted(leaves.items())])


@each_session
def test_every_recorded_request_and_response_verifies(record):
    known = session_records(record)
    addresses = ring_addresses(known["application"].delegations, record["session_end"])
    ring = frozenset(ring_keys(addresses, {a: known["accounts"][a].public_key for a in addresses}))
    for supplier in record["suppliers"]:
        public_key = PrivateKey.from_hex(supplier["private_key"]).public_key
        for row in supplier["relays"][:40]:
            request = decode_relay_request(unhex(row["request"]))
            assert request.header == known["session"].header
            verify_ring_signature(request.signable_hash(), request.signature, ring)
            for response in (row["response"], row["mined_response"]):
                decoded = decode_relay_response(unhex(response))
                assert verify_signature(public_key, decoded.signable_hash(), decoded.supplier_operator_signature)


@each_supplier
def test_our_root_and_proof_are_those_the_chain_accepted(record, supplier):
    leaves = mined(record, supplier)
    bulk = leaf_set(leaves)
    assert len(bulk) == supplier["num_leaves"]
    assert bulk.root().hex() == supplier["claimed_root"]
    path = proof_path(unhex(supplier["proof_seed_block_hash"].lower()), record["session_id"])
    assert path.hex() == supplier["proof_path"]
    for proof in supplier["proofs"]:
        ours = bulk.closest_proof(path, leaves.__getitem__)
        assert ours.closest_path.hex() == supplier["closest_path"]
        recorded = verify_closest(unhex(proof["proof"]), bulk.root())
        assert (recorded.closest_path, recorded.side_nodes) == (ours.closest_path, ours.side_nodes)
        if recorded.sibling_data and recorded.sibling_data[:1] != b"\x02":
            assert ours.compact().marshal().hex() == proof["proof"]


@each_supplier
def test_signing_the_recorded_claim_reproduces_its_bytes(record, supplier):
    key = PrivateKey.from_hex(supplier["private_key"])
    known = session_records(record)
    for claim in supplier["claims"]:
        message = create_claim_message(
            supplier["operator_address"], known["session"].header, unhex(supplier["claimed_root"])
        )
        assert message.value.hex() == claim["message_encoded"]
        stamp = claim["timeout_timestamp"]
        plan = TransactionPlan(
            (message,), record["chain_id"], claim["account_number"], int(claim["gas_limit"]),
            int(claim["fee"][0].removesuffix("upokt")), Timestamp(stamp["seconds"], stamp["nanos"]), claim["memo"],
        )  # fmt: skip
        assert sign_transaction(plan, key).raw.hex() == claim["tx_raw"]


def step_to(chain: LocalChain, height: int, at: dict[int, int]):
    while chain.height < height:
        block = chain.step(at.get(chain.height + 1))
    return block


@each_session
def test_the_localnet_accepts_the_recorded_claims_and_proofs(record):
    chain, at = recorded_chain(record), times(record)
    claims = sorted((c["height"], c["tx_raw"]) for s in record["suppliers"] for c in s["claims"])
    proofs = sorted((p["height"], p["tx_raw"]) for s in record["suppliers"] for p in s["proofs"])
    for height, raw in claims + proofs:
        if chain.height < height - 1:
            step_to(chain, height - 1, at)
        result = chain.broadcast(unhex(raw))
        assert (result.code, result.log) == (0, "")
    block = step_to(chain, proofs[-1][0], at)
    assert [t.result.code for t in block.transactions] == [0] * len(block.transactions)
    assert {c.proof_validation_status for c in chain.state.claims.values()} == {1}
    expected = {s["operator_address"]: s["claimed_root"] for s in record["suppliers"]}
    assert {c.supplier_operator_address: c.root_hash.hex() for c in chain.state.claims.values()} == expected
    block = step_to(chain, record["heights"]["settlement"], at)
    ours = {claim_key(e.attributes): e.attributes for e in block.end_events if e.type == CLAIM_SETTLED}
    recorded = settlements_of(record)
    assert recorded.keys() == expected.keys()
    names = (
        "num_relays",
        "claimed_upokt",
        "settled_upokt",
        "minted_upokt",
        "num_estimated_compute_units",
        "session_id",
    )
    for supplier, event in recorded.items():
        mine = ours[record["session_id"], supplier]
        assert {name: mine[name] for name in names} == {name: event.attributes[name] for name in names}


@each_session
def test_the_recorded_settlements_say_whose_they_are_and_what_reached_the_supplier(record):
    known = session_records(record)
    header, params = known["session"].header, known["tokenomics"]
    for supplier, event in settlements_of(record).items():
        end = claim_end(event)
        claimed = next(s["claimed_root"] for s in record["suppliers"] if s["operator_address"] == supplier)
        assert end.malformed == ()
        assert end.concerns(supplier, header)
        assert end.may_be_of(unhex(claimed))
        expected = supplier_reward_upokt(end.settled_upokt, params)
        assert end.earned_upokt == expected or (params.global_inflation_per_claim and end.earned_upokt < expected)
        by_address = claim_end(without_reasons(event), shareholders_of(known["raw_session"], supplier))
        assert by_address.supplier_side.keys() >= end.supplier_side.keys()


def without_reasons(event):
    return replace(event, attributes={k: v for k, v in event.attributes.items() if not k.endswith("_detailed")})


def shareholders_of(session, supplier):
    found = next(row for row in session.suppliers if row.operator_address == supplier)
    return {share.address for config in found.services for share in config.rev_share}


def test_sessions_of_a_supplier_that_settle_in_one_block_are_paired_by_session():
    """Sessions of a supplier that settle in one block are paired by session.

    No recorded block has two of them. Another corpus may.
    """
    record = RECORDS[0]
    height = record["heights"]["settlement"]
    block = next(b for b in record["block_events"] if b["height"] == height)
    text = json.dumps(block["finalize_block_events"])
    other = json.loads(text.replace(record["session_id"], "f" * 64).replace("upokt", "9upokt"))
    twice = [{"height": height, "finalize_block_events": [*other, *block["finalize_block_events"], *other]}]
    assert settlements_of({**record, "block_events": twice}) == settlements_of(record) != {}


@each_session
def test_the_localnet_refuses_a_recorded_proof_with_a_damaged_relay(record):
    chain, at = recorded_chain(record), times(record)
    supplier = record["suppliers"][0]
    step_to(chain, supplier["claims"][0]["height"] - 1, at)
    chain.broadcast(unhex(supplier["claims"][0]["tx_raw"]))
    step_to(chain, supplier["proofs"][0]["height"] - 1, at)
    raw = bytearray(unhex(supplier["proofs"][0]["tx_raw"]))
    raw[len(raw) // 2] ^= 1
    assert chain.broadcast(bytes(raw)).code == 4


def test_no_recorded_claim_or_proof_needs_more_gas_than_is_typical():
    rows = {what: [row for _, s in SUPPLIERS for row in s[what]] for what in ("claims", "proofs")}
    assert max(int(row["gas_limit"]) for row in rows["claims"]) <= CLAIM_GAS
    for row in rows["claims"] + rows["proofs"]:
        raw = unhex(row["tx_raw"])
        assert int(row["gas_used"]) <= typical_gas(raw)
    points = sorted((len(unhex(row["tx_raw"])), int(row["gas_limit"])) for row in rows["proofs"])
    assert points[-1][1] <= PROOF_GAS
    # Those of one block differ by their bytes alone.
    (_, one), (_, two) = SUPPLIERS[:2]
    (small, low), (large, high) = sorted(
        (len(unhex(s["proofs"][0]["tx_raw"])), int(s["proofs"][0]["gas_limit"])) for s in (one, two)
    )
    assert 60 < (high - low) / (large - small) <= PROOF_GAS_PER_BYTE
