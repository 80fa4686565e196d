"""Inputs and results of stake plans. Amounts in upokt, heights in blocks."""

from dataclasses import dataclass
from enum import StrEnum

from pocket.chain.model import StakedSupplier, StakingParams
from pocket.protocol.sessions.windows import SharedParams
from pocket.protocol.transactions.build import GasPrice, Message
from pocket.protocol.transactions.staking import StakedService


class StakeState(StrEnum):
    """The chain's stake compared with the declaration."""

    AS_DECLARED = "AsDeclared"
    PENDING = "Pending"  # sent and accepted, in force at a later height
    CHANGE = "Change"
    REFUSED = "Refused"


class StakeChange(StrEnum):
    """A change that a transaction makes."""

    STAKE = "Stake"
    TOP_UP = "TopUp"
    LOWER = "Lower"
    SERVICES = "Services"
    REVENUE_SHARES = "RevenueShares"
    CANCEL_UNBONDING = "CancelUnbonding"
    UNSTAKE = "Unstake"


class StakeRefusal(StrEnum):
    """Why nothing is planned."""

    INVALID_DECLARATION = "InvalidDeclaration"
    RECORD_INCOMPLETE = "RecordIncomplete"
    OWNED_BY_ANOTHER = "OwnedByAnother"
    OWNER_DIFFERS = "OwnerDiffers"
    SIGNER_NOT_ALLOWED = "SignerNotAllowed"
    BELOW_MINIMUM = "BelowMinimum"
    BALANCE_TOO_LOW = "BalanceTooLow"


class ApprovalCause(StrEnum):
    """Why a plan is never carried out without an approval of its hash."""

    LOWERS_STAKE = "LowersStake"
    UNSTAKES = "Unstakes"
    OWNER_IS_NOT_SIGNER = "OwnerIsNotSigner"
    CANCELS_UNBONDING = "CancelsUnbonding"
    CHANGED_ELSEWHERE = "ChangedElsewhere"


@dataclass(frozen=True, slots=True)
class DeclaredStake:
    """The desired stake.

    Without services, those on chain stay as they are.
    """

    operator: str
    owner: str
    amount_upokt: int
    services: tuple[StakedService, ...] = ()
    unstake: bool = False


@dataclass(frozen=True, slots=True)
class StakeSnapshot:
    """The chain as of `height`.

    supplier: None where it is not staked. balance_upokt: the signer's.
    """

    chain_id: str
    height: int
    supplier: StakedSupplier | None
    params: StakingParams
    shared: SharedParams
    balance_upokt: int


@dataclass(frozen=True, slots=True)
class Signing:
    """The signer, the gas price, and what was done before.

    reached: digest of the declaration that the chain agreed with last, empty for none.
    included: hash of the last stake transaction in a block, empty for none.
    """

    signer: str
    gas_price: GasPrice
    reached: str = ""
    included: str = ""


@dataclass(frozen=True, slots=True)
class StakeCost:
    """The cost of a stake transaction for its signer."""

    stake_upokt: int = 0
    staking_fee_upokt: int = 0
    transaction_fee_upokt: int = 0

    @property
    def total_upokt(self) -> int:
        """Everything that leaves the signer's account."""
        return self.stake_upokt + self.staking_fee_upokt + self.transaction_fee_upokt


@dataclass(frozen=True, slots=True)
class StakePlan:
    """The decision about a stake.

    `messages` is empty unless the state is CHANGE.

    plan_hash: names exactly these messages, this cost, the record on chain that they change, and the last transaction.
    left: differences that this signer must not change.
    effective_height: first block in which the change serves, or the stake is returned after an unstake.
    """

    state: StakeState
    detail: str
    changes: tuple[StakeChange, ...] = ()
    left: tuple[StakeChange, ...] = ()
    messages: tuple[Message, ...] = ()
    gas_limit: int = 0
    cost: StakeCost = StakeCost()
    returned_upokt: int = 0
    effective_height: int = 0
    approvals: tuple[ApprovalCause, ...] = ()
    refusal: StakeRefusal | None = None
    plan_hash: str = ""
    declaration: str = ""
    effect: tuple[str, ...] = ()
