"""Make stakes as declared: read, decide, record, send.

An operator that is stopped between any two of these continues with the recorded transaction.
"""

import asyncio
import base64
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from pydantic import ValidationError
from structlog.contextvars import bind_contextvars
from structlog.typing import FilteringBoundLogger

from pocket.api.base import problem_of
from pocket.api.lenient import read_known
from pocket.api.relayminer import RelayMiner
from pocket.api.stake import StakePolicy, StakeSpec, StakeTransactionStatus, StakingStatus
from pocket.api.status import ConditionType, as_status
from pocket.api.supplier import Supplier
from pocket.chain.comet import parse_time
from pocket.errors import PocketError
from pocket.kube.api_client import Conflict, KubeApi, KubeError, ObjectNotFound
from pocket.protocol.crypto.addresses import address_of
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket.protocol.transactions.build import GasPrice, Timestamp
from pocket.runtime.concurrency import map_bounded
from pocket.runtime.http_sessions import http_session
from pocket.staking.chain import SentOutcome, SentState, StakeChain, TransactionWouldFail, lane_of
from pocket.staking.declared import StakeDefaultsMissing, declared_stake, with_defaults
from pocket.staking.stake_model import Signing, StakePlan, StakeRefusal, StakeState
from pocket.staking.stake_plan import plan_stake
from pocket_operator.controller import operator_metrics
from pocket_operator.controller.events import EventWriter
from pocket_operator.controller.stake_rests import NamespacedName, StakeRests, reported_drain
from pocket_operator.controller.stake_sources import StakeChains, StakeKeys
from pocket_operator.decide.conditions import StakeCondition, conditions, reason_of_stake, stake_event
from pocket_operator.decide.object_cache import ObjectCache, operator_address, relay_miner_of
from pocket_operator.decide.plan import is_paused
from pocket_operator.decide.reasons import StakeReason
from pocket_operator.decide.schemas import Schemas
from pocket_operator.decide.stake_decision import (
    APPROVAL,
    StakeDecision,
    StakeSight,
    StakeStep,
    after_sending,
    cannot_record,
    invalid_declaration,
    last_included,
    signed_status,
    towards_declaration,
    transaction_on_its_way,
    undeclared,
    unknown,
    would_fail,
)
from pocket_operator.resources import names
from pocket_operator.resources.kinds import RELAY_MINERS, SUPPLIERS

_LOG: FilteringBoundLogger = structlog.get_logger()
Object = dict[str, Any]
FIELD_MANAGER: Final = f"{names.FIELD_MANAGER}-stake"
_AT_ONCE = 4
"""Suppliers of one RelayMiner."""
_RELAY_MINERS_AT_ONCE = 32
_ROUND_SECONDS = 30.0


def without_staking(status: Object) -> Object:
    """Return a status without the fields that only the StakeKeeper writes."""
    rest = {key: value for key, value in status.items() if key != "staking"}
    if "conditions" in rest:
        kind = ConditionType.STAKE_AS_DECLARED.value
        rest["conditions"] = [condition for condition in rest["conditions"] if condition.get("type") != kind]
    return rest


@dataclass(frozen=True)
class _Case:
    """One Supplier as the API server has it now, with its RelayMiner."""

    supplier: Object
    parsed: Supplier
    relay_miner: RelayMiner
    spec: StakeSpec
    status: StakingStatus
    signer: str

    @property
    def operator(self) -> str:
        return self.parsed.spec.operator_address


class StakeKeeper:
    """All Suppliers with spec.stake, one round after the other."""

    def __init__(
        self,
        api: KubeApi,
        store: ObjectCache,
        namespace: str,
        now: Callable[[], datetime],
        clock: Callable[[], float],
        events: EventWriter | None = None,
        schemas: Callable[[], Schemas] = Schemas,
        rng: random.Random | None = None,
    ) -> None:
        self._api = api
        self._schemas = schemas
        self._events = events
        self._namespace = namespace
        self._store = store
        self._now = now
        self._clock = clock
        self._rests = StakeRests(clock, rng or random.Random())  # noqa: S311 - jitter

    async def once(self) -> None:
        """Take one step for every Supplier.

        What fails is logged and tried again in the next round.
        """
        subjects = self._subjects()
        self._count(subjects)
        suppliers = {supplier_key: self._store.get(SUPPLIERS.name, *supplier_key) for supplier_key in subjects}
        self._rests.keep_only(suppliers)
        due = self._rests.due(suppliers)
        if not due:
            return
        async with AsyncExitStack() as stack:
            chains = StakeChains(stack, await stack.enter_async_context(http_session()))
            secrets, deadline = StakeKeys(self._api), self._clock() + _ROUND_SECONDS

            async def step(supplier_key: NamespacedName) -> None:
                if self._clock() < deadline:  # else in the next round
                    await self._bounded(chains, secrets, supplier_key)

            async def of_relay_miner(supplier_keys: list[NamespacedName]) -> None:
                await map_bounded(step, supplier_keys, _AT_ONCE)

            # Each RelayMiner has its own slots, so that one whose nodes do not answer delays no other.
            groups = defaultdict[str, list[NamespacedName]](list)
            for supplier_key in due:
                groups["/".join(relay_miner_of(self._store.get(SUPPLIERS.name, *supplier_key) or {}))].append(
                    supplier_key
                )
            await map_bounded(of_relay_miner, groups.values(), _RELAY_MINERS_AT_ONCE)

    def _count(self, supplier_keys: Iterable[NamespacedName]) -> None:
        """Count the declared stakes by the reason of their condition."""
        counts = Counter(
            reason_of_stake((self._store.get(SUPPLIERS.name, *supplier_key) or {}).get("status") or {})
            for supplier_key in supplier_keys
        )
        for reason in (*StakeReason, *StakeRefusal):
            operator_metrics.STAKES.labels(reason.value).set(counts[reason.value])

    def _subjects(self) -> list[NamespacedName]:
        subjects = []
        for key in self._store.everything():
            relay_miner = self._store.get(RELAY_MINERS.name, *key)
            if relay_miner is None or is_paused(relay_miner) or self._is_foreign(relay_miner):
                continue
            for supplier in self._store.suppliers(key):
                owner = self._store.owner(operator_address(supplier))
                mine = owner is not None and owner["metadata"]["uid"] == supplier["metadata"]["uid"]
                if mine and (_is_declared(supplier) or _has_to_end(supplier)):
                    subjects.append((str(supplier["metadata"]["namespace"]), str(supplier["metadata"]["name"])))
        return subjects

    def _is_foreign(self, relay_miner: Object) -> bool:
        """Return whether the operator of another namespace manages the RelayMiner."""
        return (relay_miner.get("status") or {}).get("operator") not in (None, "", self._namespace)

    async def _bounded(self, chains: StakeChains, secrets: StakeKeys, supplier_key: NamespacedName) -> None:
        bind_contextvars(namespace=supplier_key[0], supplier=supplier_key[1])  # of this task
        try:
            async with asyncio.timeout(_ROUND_SECONDS):
                await self._one(chains, secrets, supplier_key)
        except TimeoutError:
            _LOG.warning("stake round timed out, retrying", seconds=_ROUND_SECONDS)
            if (supplier := self._store.get(SUPPLIERS.name, *supplier_key)) is not None:
                self._rests.rest(supplier, complete=False)
        except Conflict:
            _LOG.info("Supplier changed in the meantime, deciding again in the next round")
        except KubeError as error:
            _LOG.warning("stake round failed, retrying", error=error)
        except Exception:  # noqa: BLE001 - a defect met by one Supplier must not stop the others
            _LOG.exception("stake round failed unexpectedly, retrying")

    async def _one(self, chains: StakeChains, secrets: StakeKeys, supplier_key: NamespacedName) -> None:
        # The API server is asked, not the watch: a transaction that was recorded must not be overlooked.
        supplier = await self._api.get_or_none(SUPPLIERS, *supplier_key)
        if supplier is None:
            return
        owner = self._store.get(RELAY_MINERS.name, *relay_miner_of(supplier)) or {}
        try:
            # A newer release may have written fields that this one does not know.
            status, _ = read_known(StakingStatus, (supplier.get("status") or {}).get("staking") or {})
            relay_miner, _ = read_known(RelayMiner, {k: v for k, v in owner.items() if k != "status"})
        except ValidationError as error:
            _LOG.warning("invalid Supplier skipped", problem=problem_of(error))
            return
        try:
            if status.transaction.outcome == SentOutcome.WAITING.value:
                await self._follow(supplier, status, await chains.of(relay_miner.spec.chain))
            elif not _is_declared(supplier):
                if _has_to_end(supplier):
                    await self._write(supplier, undeclared(status), None)
            elif (case := await self._case(supplier, relay_miner, secrets, status)) is not None:
                status = case.status
                await self._step(case, await chains.of(relay_miner.spec.chain), secrets)
        except PocketError as error:
            await self._report(supplier, status, unknown(str(error)))

    async def _report(self, supplier: Object, status: StakingStatus, fact: StakeCondition) -> None:
        """Write the status, and let a Supplier rest for a while if nothing changed."""
        if await self._write(supplier, status, fact):
            self._rests.end(supplier)
        else:
            self._rests.rest(supplier, complete=fact.state == "True")

    async def _follow(self, supplier: Object, status: StakingStatus, chain: StakeChain) -> None:
        """Follow a transaction to its end, also where its declaration is gone."""
        transaction = status.transaction
        sent = await chain.outcome(transaction.hash, parse_time(transaction.expires_at))
        if sent.outcome is SentOutcome.WAITING:
            sent = await _send(chain, base64.b64decode(transaction.raw))
        decision = after_sending(status, sent)
        await self._write(supplier, decision.status, decision.condition)

    async def _case(
        self, supplier: Object, owner: RelayMiner, secrets: StakeKeys, status: StakingStatus
    ) -> _Case | None:
        key = relay_miner_of(supplier)
        try:
            parsed, _ = read_known(Supplier, {k: v for k, v in supplier.items() if k != "status"})
        except ValidationError as error:
            _LOG.warning("invalid Supplier skipped", problem=problem_of(error))
            return None
        if parsed.spec.stake is None:
            return None
        signer = parsed.spec.operator_address
        if parsed.spec.stake.key_secret_ref is not None:
            supplier_key = await secrets.key(key.namespace, key.name, parsed)
            signer = signer if supplier_key is None else address_of(supplier_key.public_key)
        try:
            spec, inherited = with_defaults(parsed.spec.stake, self._defaults(key.namespace, parsed.spec.stake))
        except StakeDefaultsMissing as error:
            await self._report(supplier, status, invalid_declaration(str(error)))
            return None
        status = status.model_copy(update={"inherited": inherited})
        return _Case(supplier, parsed, owner, spec, status, signer)

    def _defaults(self, namespace: str, spec: StakeSpec) -> StakeSpec | None:
        """Return the stake of the Supplier that gives defaults, None without a valid one."""
        if spec.defaults_from is None:
            return None
        other = self._store.get(SUPPLIERS.name, namespace, spec.defaults_from.name) or {}
        try:
            return read_known(StakeSpec, (other.get("spec") or {})["stake"])[0]
        except (KeyError, ValidationError):
            return None

    async def _step(self, case: _Case, chain: StakeChain, secrets: StakeKeys) -> None:
        plan = plan_stake(
            declared_stake(case.operator, case.spec),
            await chain.snapshot(case.operator, case.signer, case.status.transaction.height),
            Signing(
                signer=case.signer,
                gas_price=GasPrice.parse(case.relay_miner.spec.chain.gas_price),
                reached=case.status.reached,
                included=last_included(case.status),
            ),
        )
        key = None
        if plan.state is StakeState.CHANGE and case.spec.policy is not StakePolicy.OBSERVE:
            relay_miner = relay_miner_of(case.supplier)
            key = await secrets.key(relay_miner.namespace, relay_miner.name, case.parsed)
        sight = StakeSight(
            namespace=case.parsed.metadata.namespace,
            name=case.parsed.metadata.name,
            spec=case.spec,
            signer=case.signer,
            has_key=key is not None and address_of(key.public_key) == case.signer,
            approved=str((case.supplier["metadata"].get("annotations") or {}).get(APPROVAL, "")),
            status=case.status,
            now=self._now(),
            drain=reported_drain(case.supplier),
        )
        decision = towards_declaration(sight, plan)
        if decision.step is StakeStep.SIGN and key is not None:
            await self._sign(case, chain, plan, decision, key)
        else:
            await self._report(case.supplier, decision.status, decision.condition)

    async def _sign(
        self, case: _Case, chain: StakeChain, plan: StakePlan, decision: StakeDecision, key: PrivateKey
    ) -> None:
        """Sign, record the bytes, then send, so that only recorded bytes are ever sent."""
        try:
            signed, timeout = await chain.sign(plan, key, lane_of(case.operator, case.status.transaction.hash))
        except TransactionWouldFail as error:
            failing = would_fail(decision, str(error))
            await self._report(case.supplier, failing.status, failing.condition)
            return
        recorded = StakeTransactionStatus(
            hash=signed.tx_hash,
            raw=base64.b64encode(signed.raw).decode(),
            expires_at=_text(timeout),
            fee_upokt=plan.cost.transaction_fee_upokt,
        )
        status = signed_status(decision.status, plan, recorded, now=self._now(), approved=decision.approved)
        if not self._can_record(status):
            held = cannot_record(decision)
            await self._report(case.supplier, held.status, held.condition)
            return
        await self._write(case.supplier, status, decision.condition)
        _LOG.info(
            "stake transaction sent",
            hash=signed.tx_hash,
            plan=plan.plan_hash,
            cost_upokt=plan.cost.total_upokt,
        )
        await _send(chain, signed.raw)

    def _can_record(self, status: StakingStatus) -> bool:
        """Return True if the installed definition stores the transaction whole.

        Then it is never signed twice.
        """
        staking = as_status(status)
        stored = self._schemas().pruned_status(SUPPLIERS.name, {"staking": staking})
        return bool((stored.get("staking") or {}).get("transaction") == staking["transaction"])

    async def _write(self, supplier: Object, status: StakingStatus, fact: StakeCondition | None) -> bool:
        """Apply status and condition where they differ.

        Without a `fact` the condition is removed. Returns whether they differed.

        Raises Conflict where the Supplier changed since it was read.
        """
        metadata, before = supplier["metadata"], supplier.get("status") or {}
        reported = before.get("conditions") or ()
        kept: Mapping[str, Any] = next(
            (one for one in reported if one.get("type") == ConditionType.STAKE_AS_DECLARED.value), {}
        )
        generation = int(metadata.get("generation") or 0)
        after: Object = {"staking": as_status(status)}
        if fact is not None:
            after["conditions"] = [as_status(one) for one in conditions([fact], reported, generation, self._now())]
        after = self._schemas().pruned_status(SUPPLIERS.name, after)
        if before.get("staking") == after["staking"] and after.get("conditions", []) == ([kept] if kept else []):
            return False
        body = {
            "apiVersion": SUPPLIERS.api_version,
            "kind": SUPPLIERS.name,
            "metadata": {
                "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
            "status": after,
        }  # fmt: skip
        try:
            patched = await self._api.call(
                "PATCH", SUPPLIERS.path(metadata["namespace"], metadata["name"], "status"), body=body,
                query={"fieldManager": FIELD_MANAGER, "force": "true"}, content_type="application/apply-patch+yaml",
            )  # fmt: skip
        except ObjectNotFound as error:
            raise Conflict(str(error), error.status) from error
        supplier["metadata"]["resourceVersion"] = patched["metadata"]["resourceVersion"]
        if fact is not None and self._events is not None and (event := stake_event(fact, kept)) is not None:
            self._events.post({"apiVersion": SUPPLIERS.api_version, "kind": SUPPLIERS.name, **supplier}, event)
        return True


def _is_declared(supplier: Object) -> bool:
    return (supplier.get("spec") or {}).get("stake") is not None and not supplier["metadata"].get("deletionTimestamp")


def _has_to_end(supplier: Object) -> bool:
    """Return True if an earlier declaration is not concluded.

    Its transaction or plan is still open.
    """
    reported_conditions = (supplier.get("status") or {}).get("conditions") or ()
    reported = any(condition.get("type") == ConditionType.STAKE_AS_DECLARED.value for condition in reported_conditions)
    return transaction_on_its_way(supplier) or (reported and not supplier["metadata"].get("deletionTimestamp"))


async def _send(chain: StakeChain, raw: bytes) -> SentState:
    """Send recorded bytes.

    A refusal concludes nothing: another node may have the bytes, and an included transaction's nonce is refused, too.
    """
    sent = await chain.send(raw)
    if sent.log:
        _LOG.warning("chain nodes refused a stake transaction, sending it again until it expires", problem=sent.log)
    return sent


def _text(stamp: Timestamp) -> str:
    moment = datetime.fromtimestamp(stamp.seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{moment}.{stamp.nanos:09}Z"
