"""The declared stake of a Supplier, and what the operator may do about it."""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pocket.api.address_checksum import CHECKSUM, checksum_rule
from pocket.api.base import Model, first_repeated
from pocket.api.kubernetes import Name
from pocket.api.redis import SecretKeyRef
from pocket.api.schema import list_map, rule, rules, text
from pocket.api.services import ServiceId, url

_LARGEST = 2**53
_ALL_SHARES = 100
_SHARES_MESSAGE = "revenue shares must add up to 100 percent"
_BUDGET_MESSAGE = "policy Apply needs budgetUpokt, the most that may be spent without an approval"

PoktAddress = Annotated[
    str,
    *text(
        "pokt1[02-9ac-hj-np-z]{38}",
        "must be an address: pokt1 and 38 lower case letters or digits",
        longest=43,
        description="Address on chain.",
    ),
    CHECKSUM,
]
StakedUrl = Annotated[
    str, *url("https?|wss?", "https://relay.example.com", "Public URL, as gateways call it: http, https, ws or wss.")
]


class StakePolicy(StrEnum):
    """What the operator does about a stake that is not as declared."""

    OBSERVE = "Observe"
    PLAN = "Plan"
    APPLY = "Apply"


class RevenueShare(Model):
    """A share of a service's rewards."""

    address: PoktAddress
    percent: int = Field(ge=1, le=100)


RevenueShares = Annotated[
    tuple[RevenueShare, ...],
    Field(
        max_length=16,
        json_schema_extra=list_map("address")
        | rules(rule("self.size() == 0 || self.map(s, s.percent).sum() == 100", _SHARES_MESSAGE)),
    ),
]


class StakedEndpoint(Model):
    """A URL of a service with its transport."""

    url: StakedUrl
    rpc_type: Literal["jsonRpc", "rest", "cometBft", "webSocket", "grpc"]


class StakedServiceSpec(Model):
    """A service to stake for."""

    id: ServiceId
    endpoints: tuple[StakedEndpoint, ...] = Field(min_length=1, max_length=8)
    revenue_shares: RevenueShares = Field(
        default=(), description="Default: those of spec.stake, else everything to the owner."
    )


def _whole(shares: tuple[RevenueShare, ...]) -> bool:
    addresses = {share.address for share in shares}
    total = sum(share.percent for share in shares)
    return not shares or (total == _ALL_SHARES and len(addresses) == len(shares))


class StakeDefaultsRef(Model):
    """Another Supplier in the same namespace."""

    name: Name = Field(min_length=1, description="Name of the Supplier.")


class StakeSpec(Model):
    """The stake that the supplier should have on chain."""

    model_config = Model.model_config | {
        "json_schema_extra": rules(rule("self.policy != 'Apply' || self.budgetUpokt > 0", _BUDGET_MESSAGE))
    }

    policy: StakePolicy = Field(
        default=StakePolicy.OBSERVE,
        description="Observe reports what differs. Plan also writes the transaction to the status and sends it once "
        "the annotation pocket.network/approve-stake-plan holds its hash. Apply sends it within the budget. A stake is "
        "never lowered and never unstaked without the annotation.",
    )
    state: Literal["Staked", "Unstaked"] = Field(
        default="Staked", description="Unstaked ends the stake after the unbonding period."
    )
    amount_upokt: int = Field(ge=1, le=_LARGEST, description="Total stake, upokt.")
    owner: Annotated[PoktAddress, checksum_rule()] | None = Field(
        default=None, description="Owner on chain, who gets the stake back. Default: the operator. Never changed here."
    )
    services: tuple[StakedServiceSpec, ...] = Field(
        default=(),
        max_length=64,
        description="Complete list of services. Empty: they stay as they are on chain.",
        json_schema_extra=list_map("id"),
    )
    revenue_shares: RevenueShares = Field(
        default=(), description="Shares of services without their own. Default: everything to the owner."
    )
    defaults_from: StakeDefaultsRef | None = Field(
        default=None,
        description="Supplier whose spec.stake gives the services and revenueShares that are not set here. Its own "
        "defaultsFrom is not followed.",
    )
    budget_upokt: int = Field(
        default=0, ge=0, le=_LARGEST, description="Most that policy Apply spends in total without an approval, upokt."
    )
    min_interval_seconds: int = Field(
        default=3600, ge=60, le=604800, description="Least seconds between two transactions of policy Apply."
    )
    key_secret_ref: SecretKeyRef | None = Field(
        default=None, description="Key that signs and pays, as hex: the operator's or the owner's. Default: spec.key."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.policy is StakePolicy.APPLY and not self.budget_upokt:
            raise ValueError(_BUDGET_MESSAGE)
        if not all(_whole(row) for row in (self.revenue_shares, *(s.revenue_shares for s in self.services))):
            raise ValueError(_SHARES_MESSAGE)
        if (twice := first_repeated(service.id for service in self.services)) is not None:
            raise ValueError(f"service {twice} occurs twice")
        return self


class StakePlanStatus(Model):
    """The transaction that would make the stake as declared."""

    hash: str = Field(default="", description="Approve with the annotation pocket.network/approve-stake-plan.")
    changes: tuple[str, ...] = ()
    signer: str = ""
    cost_upokt: int = Field(default=0, description="What the signer pays, fees included, upokt.")
    returned_upokt: int = Field(default=0, description="What goes back to the owner, upokt.")
    effect: tuple[str, ...] = ()
    approvals: tuple[str, ...] = Field(default=(), description="Why the plan needs an approval.")
    transaction: str = Field(default="", max_length=262144, description="Unsigned transaction as JSON.")


class StakeTransactionStatus(Model):
    """The last transaction that was signed here."""

    hash: str = ""
    plan: str = Field(default="", description="Hash of its plan.")
    approved: bool = False
    raw: str = Field(default="", max_length=262144, description="Signed bytes, base64, sent again as they are.")
    expires_at: str = Field(default="", description="Block time after which no chain node includes it.")
    signed_at: str = ""
    cost_upokt: int = Field(default=0, description="What it costs once it is in a block, upokt.")
    fee_upokt: int = Field(default=0, description="What it costs where it fails in a block, upokt.")
    outcome: Literal["", "Sent", "Included", "Failed", "Expired"] = ""
    height: int = Field(
        default=0, description="Block of the transaction, or the block whose time ruled out that it is included."
    )
    log: str = Field(default="", max_length=4096)


class StakingStatus(Model):
    """What the operator does about the stake."""

    plan: StakePlanStatus = StakePlanStatus()
    inherited: tuple[str, ...] = Field(
        default=(), max_length=8, description="Fields of spec.stake that come from defaultsFrom, as in services."
    )
    transaction: StakeTransactionStatus = StakeTransactionStatus()
    spent_upokt: int = Field(default=0, description="Spent by policy Apply without approval, upokt.")
    reached: str = Field(default="", description="Digest of the declaration that the chain last agreed with.")
    included: str = Field(default="", description="Hash of the last transaction signed here that is in a block.")
