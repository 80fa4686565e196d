"""From the Supplier resource to the stake that it declares."""

from pocket.api.services import RPC_NUMBERS
from pocket.api.stake import RevenueShare, StakedServiceSpec, StakeSpec
from pocket.protocol.transactions.staking import Endpoint, StakedService
from pocket.staking.stake_model import DeclaredStake

_WHOLE = 100


def declared_stake(operator: str, spec: StakeSpec) -> DeclaredStake:
    """Return the declaration with its defaults filled in.

    Without an owner the operator owns, without shares the owner gets all rewards.
    """
    owner = spec.owner or operator
    services = tuple(_service(row, spec.revenue_shares, owner) for row in spec.services)
    return DeclaredStake(operator, owner, spec.amount_upokt, services, spec.state == "Unstaked")


def _service(row: StakedServiceSpec, shares: tuple[RevenueShare, ...], owner: str) -> StakedService:
    chosen = tuple((share.address, share.percent) for share in row.revenue_shares or shares)
    endpoints = tuple(Endpoint(endpoint.url, RPC_NUMBERS[endpoint.rpc_type]) for endpoint in row.endpoints)
    return StakedService(row.id, endpoints, chosen or ((owner, _WHOLE),))
