"""Verify a stored proof in full, in the end blocker.

Source: claims-and-proofs.md, section 2.
"""

from pocket.errors import InvalidProof, PocketError
from pocket.protocol.claims.proof_requirement import Claim, proof_path
from pocket.protocol.crypto.ecdsa import verify_signature
from pocket.protocol.crypto.ring import verify_ring_signature
from pocket.protocol.relays.messages import decode_mined_relay
from pocket.protocol.rings import PLACEHOLDER_ADDRESS, ring_addresses, ring_keys
from pocket.protocol.smst.verify import decompact, leaf_value, unmarshal, verify_closest
from pocket_localnet.state import BlockHash, State, StoredProof


def expected_ring(state: State, application: str, session_end: int) -> frozenset[bytes]:
    """Return the keys that may sign for the application's session.

    Raises KeyError if one is unknown.
    """
    record = state.applications[application]
    addresses = ring_addresses(record.delegations, session_end)
    keys: dict[str, bytes] = {}
    for address in addresses:
        if address == PLACEHOLDER_ADDRESS:
            continue
        account = state.accounts.get(address)
        if account is None or account.public_key is None:
            raise KeyError(address)
        keys[address] = account.public_key
    return frozenset(ring_keys(addresses, keys))


def failure_of(state: State, block_hash: BlockHash, claim: Claim, stored: StoredProof) -> str:
    """Return why the proof is invalid, '' if it is valid.

    Texts begin as the chain's do.
    """
    try:
        proof, _ = decompact(unmarshal(stored.proof))
        _, request, response, header = decode_mined_relay(leaf_value(proof))
    except PocketError as error:
        return f"{error}: invalid relay"
    application = header.application_address
    try:
        ring = expected_ring(state, application, header.session_end_block_height)
        verify_ring_signature(request.signable_hash(), request.signature, ring)
    except (PocketError, KeyError) as error:
        return (
            "ring signature in the relay request does not match the expected one for the app "
            f"{application}: {error}: invalid relay request"
        )
    account = state.accounts.get(stored.supplier_operator_address)
    if (
        account is None
        or account.public_key is None
        or not verify_signature(account.public_key, response.signable_hash(), response.supplier_operator_signature)
    ):
        return "invalid signature: invalid relay response"
    end = claim.header.session_end_block_height
    seed = block_hash(state.shared_params_at(end).windows(end).proof_seed)
    expected = proof_path(seed, claim.header.session_id)
    if proof.path != expected:
        return (
            f"the path of the proof provided ({proof.path.hex()}) does not match one expected by the onchain "
            f"protocol ({expected.hex()}): invalid proof"
        )
    try:
        verify_closest(stored.proof, claim.root_hash)
    except InvalidProof as error:
        if error.stage == "verify_false":
            return "invalid closest merkle proof: invalid proof"
        return f"invalid closest proof: {error}: invalid proof"
    return ""
