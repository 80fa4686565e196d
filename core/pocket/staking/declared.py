"""From the Supplier resource to the stake that it declares."""

from pocket.api.services import RPC_NUMBERS
from pocket.api.stake import RevenueShare, StakedServiceSpec, StakeSpec
from pocket.errors import ConfigurationError
from pocket.protocol.transactions.staking import Endpoint, StakedService
from pocket.staking.stake_model import DeclaredStake

_WHOLE = 100


class StakeDefaultsMissing(ConfigurationError):
    """The Supplier of spec.stake.defaultsFrom is absent or declares no stake."""


def with_defaults(spec: StakeSpec, base: StakeSpec | None) -> tuple[StakeSpec, tuple[str, ...]]:
    """Return the declaration with another Supplier's defaults, and their names.

    `base` is the stake of the Supplier that defaultsFrom names, None without one. Raises StakeDefaultsMissing.
    """
    if spec.defaults_from is None:
        return spec, ()
    if base is None:
        raise StakeDefaultsMissing(
            f"Supplier {spec.defaults_from.name}, which spec.stake.defaultsFrom names, does not exist in this "
            "namespace or has no spec.stake"
        )
    taken: dict[str, object] = {}
    if not spec.services and base.services:
        # Shares of the other Supplier's services stay theirs, unless this declaration has shares of its own.
        taken["services"] = tuple(
            row.model_copy(update={"revenue_shares": ()}) if spec.revenue_shares else row for row in base.services
        )
    if not spec.revenue_shares and base.revenue_shares:
        taken["revenue_shares"] = base.revenue_shares
    shown = {"services": "services", "revenue_shares": "revenueShares"}
    return spec.model_copy(update=taken), tuple(shown[name] for name in taken)


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
