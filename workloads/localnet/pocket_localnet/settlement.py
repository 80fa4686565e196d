"""Settle claims: rewards, penalties and the next difficulty.

Source: claims-and-proofs.md, section 7.
"""

import json
from collections import Counter
from dataclasses import dataclass, replace

from pocket.chain.model import Event, StakedSupplier
from pocket.protocol.claims.amounts import estimated_compute_units
from pocket.protocol.claims.proof_requirement import Claim, ProofRequirement
from pocket.protocol.claims.rewards import minted_upokt, share_of
from pocket.protocol.relays.difficulty import BASE_TARGET, next_ema, target_for
from pocket.protocol.sessions.session_id import config_active
from pocket.protocol.smst.digest import Root
from pocket_localnet.handlers import claim_attributes, claimed_amount, requirement_of
from pocket_localnet.staking_handlers import unstaked
from pocket_localnet.state import BlockHash, DifficultyEntry, State

VALIDATED = 1
INVALID = 2
_PREFIX = "TLM_RELAY_BURN_EQUALS_MINT_"


@dataclass(frozen=True, slots=True)
class Reward:
    """One payment out of a settled claim."""

    recipient: str
    reason: str
    upokt: int


def ripe_claims(state: State) -> list[Claim]:
    """Return the claims whose proof window has closed, in store order."""
    ripe = []
    for _, claim in sorted(state.claims.items()):
        end = claim.header.session_end_block_height
        if state.height > end + state.shared_params_at(end).window_blocks:
            ripe.append(claim)
    return ripe


def rewards_of(state: State, claim: Claim, minted: int) -> list[Reward]:
    """Split a minted amount. The DAO gets what rounding leaves."""
    split = state.tokenomics.distribution
    supplier = state.suppliers[claim.supplier_operator_address]
    service = state.services[claim.header.service_id]
    pot = share_of(minted, split.supplier)
    rewards = []
    end = claim.header.session_end_block_height
    of_service = [c for c in supplier.history if c.service_id == service.id]
    active = [c for c in of_service if config_active(c.activation_height, c.deactivation_height, end)]
    config = next(iter(active or of_service), None)
    shares = config.revenue_share if config and config.revenue_share else ((supplier.owner_address, 100),)
    paid = 0
    for address, percent in shares[1:]:
        rewards.append(Reward(address, f"{_PREFIX}SUPPLIER_SHAREHOLDER_REWARD_DISTRIBUTION", pot * percent // 100))
        paid += rewards[-1].upokt
    first = Reward(shares[0][0], f"{_PREFIX}SUPPLIER_SHAREHOLDER_REWARD_DISTRIBUTION", pot - paid)
    rewards.insert(0, first)
    owner = share_of(minted, split.source_owner)
    application = share_of(minted, split.application)
    proposer = share_of(minted, split.proposer)
    rewards.append(Reward(service.owner_address, f"{_PREFIX}SOURCE_OWNER_REWARD_DISTRIBUTION", owner))
    if application:
        rewards.append(
            Reward(claim.header.application_address, f"{_PREFIX}APPLICATION_REWARD_DISTRIBUTION", application)
        )
    dao = minted - pot - owner - application - proposer
    rewards.append(Reward(state.tokenomics.dao_reward_address, f"{_PREFIX}DAO_REWARD_DISTRIBUTION", dao))
    return [reward for reward in rewards if reward.upokt]


def _settled_attributes(state: State, claim: Claim) -> dict[str, str]:
    """Return the attributes of a claim's end.

    Its compute units are estimated from the difficulty.
    """
    target = state.difficulty_at(claim.header.service_id, claim.header.session_start_block_height).target_hash
    estimated = estimated_compute_units(Root(claim.root_hash), target)
    return claim_attributes(state, claim) | {"num_estimated_compute_units": str(estimated)}


def _budgets(state: State, claims: list[Claim]) -> dict[tuple[str, str], int]:
    """Return the upokt that an application can pay each supplier of a session.

    The suppliers are those that claim.
    """
    claimants = Counter((claim.header.application_address, claim.header.session_id) for claim in claims)
    budgets = {}
    for (application, session_id), number in claimants.items():
        claim = next(c for c in claims if c.header.session_id == session_id)
        pending = state.shared_params_at(claim.header.session_end_block_height).pending_sessions
        stake = state.applications[application].stake_upokt
        budgets[application, session_id] = stake // max(pending, 1) // number
    return budgets


def _slash(state: State, supplier: StakedSupplier, claim: Claim) -> Event:
    penalty = min(state.proof_params.proof_missing_penalty_upokt, supplier.stake_upokt)
    left = replace(supplier, stake_upokt=supplier.stake_upokt - penalty)
    if left.stake_upokt < state.supplier_min_stake and not left.unstake_session_end_height:
        left = unstaked(state, left)
    state.suppliers[supplier.operator_address] = left
    attributes = _settled_attributes(state, claim)
    kept = ("service_id", "application_address", "session_end_block_height", "claim_proof_status_int")
    return Event(
        "pocket.tokenomics.EventSupplierSlashed",
        {
            "proof_missing_penalty": f"{penalty}upokt",
            **{name: attributes[name] for name in kept},
            "supplier_operator_address": supplier.operator_address,
            "supplier_stake_after_slash": f"{left.stake_upokt}upokt",
        },
    )


def _settle(state: State, claim: Claim, budget_upokt: int, requirement: ProofRequirement) -> list[Event]:
    events = []
    claimed = claimed_amount(state, claim)
    app = state.applications[claim.header.application_address]
    bonus = max(1, state.tokenomics.overservicing_bonus_multiplier)
    settled = min(claimed, budget_upokt * bonus, app.stake_upokt)
    if settled < claimed:
        events.append(
            Event(
                "pocket.tokenomics.EventApplicationOverserviced",
                {
                    "application_addr": app.address,
                    "supplier_operator_addr": claim.supplier_operator_address,
                    "expected_burn": f"{claimed}upokt",
                    "effective_burn": f"{settled}upokt",
                    "service_id": claim.header.service_id,
                    "session_end_block_height": str(claim.header.session_end_block_height),
                    "spend_limit_exceeded": "false",
                },
            )
        )
    app = replace(app, stake_upokt=app.stake_upokt - settled)
    if app.stake_upokt < state.application_min_stake and not app.unstake_session_end_height:
        app = replace(app, unstake_session_end_height=state.shared_params_at(state.height).session_end(state.height))
    state.applications[app.address] = app
    minted = minted_upokt(settled, state.tokenomics.mint_ratio)
    rewards = rewards_of(state, claim, minted)
    totals: dict[str, int] = {}
    for reward in rewards:
        state.credit(reward.recipient, reward.upokt)
        totals[reward.recipient] = totals.get(reward.recipient, 0) + reward.upokt
    supplier = state.suppliers[claim.supplier_operator_address]
    detail = [{"recipient_address": r.recipient, "op_reason": r.reason, "amount": f"{r.upokt}upokt"} for r in rewards]
    events.append(
        Event(
            "pocket.tokenomics.EventClaimSettled",
            {
                **_settled_attributes(state, claim),
                "proof_requirement_int": str(int(requirement)),
                "reward_distribution": json.dumps(
                    {a: f"{v}upokt" for a, v in sorted(totals.items())}, separators=(",", ":")
                ),
                "reward_distribution_detailed": json.dumps(detail, separators=(",", ":")),
                "settled_upokt": f"{settled}upokt",
                "minted_upokt": f"{minted}upokt",
                "overservicing_loss_upokt": f"{claimed - settled}upokt",
                "deflation_loss_upokt": f"{settled - minted}upokt",
                "mint_ratio": f"{state.tokenomics.mint_ratio:g}",
                "session_id": claim.header.session_id,
                "supplier_owner_address": supplier.owner_address,
            },
        )
    )
    return events


def _update_difficulty(state: State, service_id: str, relays: int) -> Event:
    entries = state.difficulties.get(service_id, ())
    next_start = state.shared_params_at(state.height).session_end(state.height) + 1
    previous = entries[-1] if entries else DifficultyEntry(0, BASE_TARGET, relays)
    ema = next_ema(previous.num_relays_ema, relays) if entries else relays
    target = target_for(ema, state.target_num_relays)
    added = () if entries else (DifficultyEntry(state.height, target, ema),)
    state.difficulties[service_id] = (*entries, *added, DifficultyEntry(next_start, target, ema))
    return Event(
        "pocket.service.EventRelayMiningDifficultyUpdated",
        {
            "service_id": service_id,
            "prev_target_hash_hex_encoded": previous.target_hash.hex(),
            "new_target_hash_hex_encoded": target.hex(),
            "prev_num_relays_ema": str(previous.num_relays_ema),
            "new_num_relays_ema": str(ema),
        },
    )


def settle(state: State, block_hash: BlockHash) -> list[Event]:
    """Settle every ripe claim on `state` and delete it."""
    claims = ripe_claims(state)
    budgets = _budgets(state, claims)
    events: list[Event] = []
    slashes: list[Event] = []
    relays: Counter[str] = Counter()
    for claim in claims:
        key = (claim.header.session_id, claim.supplier_operator_address)
        requirement = requirement_of(state, claim, block_hash)
        if requirement is ProofRequirement.NOT_REQUIRED or claim.proof_validation_status == VALIDATED:
            budget = budgets[claim.header.application_address, claim.header.session_id]
            events += _settle(state, claim, budget, requirement)
            relays[claim.header.service_id] += Root(claim.root_hash).count
        else:
            reason = "PROOF_INVALID" if claim.proof_validation_status == INVALID else "PROOF_MISSING"
            attributes = {"expiration_reason": reason, **_settled_attributes(state, claim)}
            events.append(Event("pocket.tokenomics.EventClaimExpired", attributes))
            slashes.append(_slash(state, state.suppliers[claim.supplier_operator_address], claim))
        del state.claims[key]
        state.proofs.pop(key, None)
    updates = [_update_difficulty(state, service, number) for service, number in sorted(relays.items())]
    return [*events, *slashes, *updates]
