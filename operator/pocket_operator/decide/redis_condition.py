"""Decide the condition RedisReachable of a RelayMiner."""

from typing import Final

from pocket.api.redis import Durability
from pocket.api.status import ConditionType
from pocket_operator.decide.conditions import ConditionSpec
from pocket_operator.decide.pod_report import Report
from pocket_operator.decide.reasons import ConditionReason
from pocket_operator.decide.sections import section
from pocket_operator.decide.snapshot import Snapshot
from pocket_operator.resources import names

_STATED: Final = {
    Durability.AOF: " Its owner states that it keeps an append-only file.",
    Durability.MANAGED: " Its owner states that a managed service keeps its data. What both the service and the "
    "relayers' logs lose is not paid.",
    Durability.NONE: " Its owner states that nothing keeps its data. After a restart relays are in the relayers' logs "
    "only, and budgets and replay protection of open sessions begin again.",
}


def durability(snapshot: Snapshot) -> str:
    """Return the owner's statement on the durability of Redis, as a sentence."""
    stated = section(snapshot.relay_miner, "spec", "redis").get("durability")
    return _STATED[Durability(stated)] if isinstance(stated, str) and stated in set(Durability) else ""


def redis_condition(reports: list[Report], stated: str) -> ConditionSpec:
    """Return whether all miners reach Redis, with what its owner `stated` about it."""
    kind = ConditionType.REDIS_REACHABLE
    miners = [r for r in reports if r.component == names.MINER]
    if not miners:
        return ConditionSpec(kind, "Unknown", ConditionReason.NO_REPORT, "No miner has reported.")
    cut_off = [(r.pod, r.answer.redis) for r in miners if r.answer.redis]
    if cut_off:
        pod, problem = cut_off[0]
        return ConditionSpec(
            kind, "False", ConditionReason.REDIS_UNREACHABLE, f"{pod}: {problem} Check spec.redis and the server."
        )
    return ConditionSpec(kind, "True", ConditionReason.REACHABLE, f"The miners reach Redis.{stated}")
