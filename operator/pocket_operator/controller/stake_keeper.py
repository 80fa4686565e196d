"""Make stakes as declared: read, decide, record, send.

An operator that is stopped between any two of these continues with the recorded transaction.
"""

import asyncio
import base64
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
import structlog
from pydantic import ValidationError
from structlog.contextvars import bind_contextvars
from structlog.typing import FilteringBoundLogger

from pocket.api.base import problem_of
from pocket.api.lenient import read_known
from pocket.api.relayminer import ChainSpec, RelayMiner
from pocket.api.stake import StakeSpec, StakeTransactionStatus, StakingStatus
from pocket.api.status import ConditionType, DrainProgress, as_status
from pocket.api.supplier import Supplier
from pocket.chain.client import ChainClient
from pocket.chain.comet import CometClient, parse_time
from pocket.chain.failover import NodeAddress
from pocket.errors import DecodingError, PocketError
from pocket.kube.api_client import Conflict, KubeApi, KubeError, ObjectNotFound
from pocket.protocol.crypto.addresses import address_of
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket.protocol.transactions.build import GasPrice, Timestamp
from pocket.staking.chain import SentOutcome, SentState, StakeChain, TransactionWouldFail, lane_of
from pocket.staking.declared import StakeDefaultsMissing, declared_stake, with_defaults
from pocket.staking.stake_model import Signing, StakePlan, StakeRefusal
from pocket.staking.stake_plan import plan_stake
from pocket_operator.controller import operator_metrics
from pocket_operator.controller.concurrency import gather_limited
from pocket_operator.controller.events import EventWriter
from pocket_operator.decide.conditions import StakeCondition, conditions, reason_of_stake, stake_event
from pocket_operator.decide.object_cache import ObjectCache, operator_address, relay_miner_of
from pocket_operator.decide.plan import is_paused
from pocket_operator.decide.reasons import StakeReason
from pocket_operator.decide.snapshot import SecretView
from pocket_operator.decide.stake_decision import (
    APPROVAL,
    StakeDecision,
    StakeSight,
    StakeStep,
    after_sending,
    invalid_declaration,
    last_included,
    signed_status,
    towards_declaration,
    undeclared,
    unknown,
    would_fail,
)
from pocket_operator.resources import names
from pocket_operator.resources.kinds import RELAY_MINERS, SECRETS, SUPPLIERS

_LOG: FilteringBoundLogger = structlog.get_logger()
Object = dict[str, Any]
FIELD_MANAGER: Final = f"{names.FIELD_MANAGER}-stake"
_Place = tuple[str, str]
_Version = tuple[int, str]
_AT_ONCE = 4
_REST_SECONDS = 60.0
"""Until a stake that was as declared is compared again."""
_ROUND_SECONDS = 30.0


def without_staking(status: Object) -> Object:
    """Return a status without the fields that only the StakeKeeper writes."""
    rest = {key: value for key, value in status.items() if key != "staking"}
    if "conditions" in rest:
        kind = ConditionType.STAKE_AS_DECLARED.value
        rest["conditions"] = [row for row in rest["conditions"] if row.get("type") != kind]
    return rest


@dataclass(frozen=True)
class _Case:
    """One Supplier as the API server has it now, with its RelayMiner."""

    supplier: Object
    relay_miner: RelayMiner
    operator: str
    spec: StakeSpec
    status: StakingStatus
    key: PrivateKey | None = field(repr=False)

    @property
    def signer(self) -> str:
        return self.operator if self.key is None else address_of(self.key.public_key)


def _version(supplier: Object) -> _Version:
    """Return what a user may change: the generation of the spec, and the approval."""
    metadata = supplier["metadata"]
    return int(metadata.get("generation") or 0), str((metadata.get("annotations") or {}).get(APPROVAL, ""))


class _Chains:
    """Clients of the chain nodes for one round, shared by all Suppliers with the same nodes."""

    def __init__(self, stack: AsyncExitStack, http: aiohttp.ClientSession) -> None:
        self._stack = stack
        self._http = http
        self._made: dict[str, StakeChain] = {}

    async def of(self, chain: ChainSpec) -> StakeChain:
        """Return the client for a chain, opened when first wanted."""
        key = chain.model_dump_json()
        if key not in self._made:
            nodes = [NodeAddress.parse(node.grpc, node.rpc) for node in chain.nodes]
            client = ChainClient(nodes, chain.query_timeout_seconds)
            comet = CometClient(nodes, self._http, chain.query_timeout_seconds, chain_id=chain.id)
            self._made[key] = StakeChain(client, comet, chain.id)
            await self._stack.enter_async_context(client)
        return self._made[key]


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
    ) -> None:
        self._api = api
        self._events = events
        self._namespace = namespace
        self._store = store
        self._now = now
        self._clock = clock
        self._resting: dict[_Place, tuple[_Version, float]] = {}

    async def once(self) -> None:
        """Take one step for every Supplier.

        What fails is logged and tried again in the next round.
        """
        subjects = self._subjects()
        self._count(subjects)
        self._resting = {place: rest for place, rest in self._resting.items() if place in subjects}
        due = [place for place in subjects if self._is_due(place)]
        if not due:
            return
        async with AsyncExitStack() as stack:
            chains = _Chains(stack, await stack.enter_async_context(aiohttp.ClientSession()))
            await gather_limited(functools.partial(self._bounded, chains), due, _AT_ONCE)

    def _count(self, places: Iterable[_Place]) -> None:
        """Count the declared stakes by the reason of their condition."""
        found = Counter(
            reason_of_stake((self._store.get(SUPPLIERS.name, *place) or {}).get("status") or {}) for place in places
        )
        for reason in (*StakeReason, *StakeRefusal):
            operator_metrics.STAKES.labels(reason.value).set(found[reason.value])

    def _is_due(self, place: _Place) -> bool:
        """Return False for a stake that was as declared a moment ago, unless its Supplier changed."""
        version, until = self._resting.get(place, (None, 0.0))
        supplier = self._store.get(SUPPLIERS.name, *place)
        return supplier is None or version != _version(supplier) or self._clock() >= until

    def _subjects(self) -> list[_Place]:
        found = []
        for key in self._store.everything():
            relay_miner = self._store.get(RELAY_MINERS.name, *key)
            if relay_miner is None or is_paused(relay_miner) or self._is_foreign(relay_miner):
                continue
            for supplier in self._store.suppliers(key):
                owner = self._store.owner(operator_address(supplier))
                mine = owner is not None and owner["metadata"]["uid"] == supplier["metadata"]["uid"]
                if mine and (_is_declared(supplier) or _has_to_end(supplier)):
                    found.append((str(supplier["metadata"]["namespace"]), str(supplier["metadata"]["name"])))
        return found

    def _is_foreign(self, relay_miner: Object) -> bool:
        """Return whether the operator of another namespace manages the RelayMiner."""
        return (relay_miner.get("status") or {}).get("operator") not in (None, "", self._namespace)

    async def _bounded(self, chains: _Chains, place: _Place) -> None:
        bind_contextvars(namespace=place[0], supplier=place[1])  # of this task
        try:
            async with asyncio.timeout(_ROUND_SECONDS):
                await self._one(chains, place)
        except TimeoutError:
            _LOG.warning("stake round timed out, retrying", seconds=_ROUND_SECONDS)
        except Conflict:
            _LOG.info("Supplier changed in the meantime, deciding again in the next round")
        except KubeError as error:
            _LOG.warning("stake round failed, retrying", error=error)
        except Exception:  # noqa: BLE001 - a defect met by one Supplier must not stop the others
            _LOG.exception("stake round failed unexpectedly, retrying")

    async def _one(self, chains: _Chains, place: _Place) -> None:
        # The API server is asked, not the watch: a transaction that was recorded must not be overlooked.
        supplier = await self._api.get_or_none(SUPPLIERS, *place)
        if supplier is None:
            return
        owner = self._store.get(RELAY_MINERS.name, *relay_miner_of(supplier)) or {}
        try:
            status = StakingStatus.model_validate((supplier.get("status") or {}).get("staking") or {})
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
            elif (case := await self._case(supplier, relay_miner, status)) is not None:
                status = case.status
                await self._step(case, await chains.of(relay_miner.spec.chain))
        except PocketError as error:
            await self._write(supplier, status, unknown(str(error)))

    async def _follow(self, supplier: Object, status: StakingStatus, chain: StakeChain) -> None:
        """Follow a transaction to its end, also where its declaration is gone."""
        transaction = status.transaction
        sent = await chain.outcome(transaction.hash, parse_time(transaction.expires_at))
        if sent.outcome is SentOutcome.WAITING:
            sent = await _send(chain, base64.b64decode(transaction.raw))
        decision = after_sending(status, sent)
        await self._write(supplier, decision.status, decision.condition)

    async def _case(self, supplier: Object, owner: RelayMiner, status: StakingStatus) -> _Case | None:
        key = relay_miner_of(supplier)
        try:
            parsed, _ = read_known(Supplier, {k: v for k, v in supplier.items() if k != "status"})
        except ValidationError as error:
            _LOG.warning("invalid Supplier skipped", problem=problem_of(error))
            return None
        if parsed.spec.stake is None:
            return None
        signer = await self._key(key.namespace, key.name, parsed)
        try:
            spec, inherited = with_defaults(parsed.spec.stake, self._defaults(key.namespace, parsed.spec.stake))
        except StakeDefaultsMissing as error:
            await self._write(supplier, status, invalid_declaration(str(error)))
            return None
        status = status.model_copy(update={"inherited": inherited})
        return _Case(supplier, owner, parsed.spec.operator_address, spec, status, signer)

    def _defaults(self, namespace: str, spec: StakeSpec) -> StakeSpec | None:
        """Return the stake of the Supplier that gives defaults, None without a valid one."""
        if spec.defaults_from is None:
            return None
        other = self._store.get(SUPPLIERS.name, namespace, spec.defaults_from.name) or {}
        try:
            return read_known(StakeSpec, (other.get("spec") or {})["stake"])[0]
        except (KeyError, ValidationError):
            return None

    async def _key(self, namespace: str, relay_miner: str, supplier: Supplier) -> PrivateKey | None:
        """Return the key of spec.stake.keySecretRef, else the supplier's published key."""
        reference = supplier.spec.stake.key_secret_ref if supplier.spec.stake is not None else None
        name, entry = names.keys(relay_miner, names.MINER), supplier.spec.operator_address
        if reference is not None:
            name, entry = reference.name, reference.key
        secret = await self._api.get_or_none(SECRETS, namespace, name)
        text = None if secret is None else SecretView.of(secret).entries.get(entry)
        try:
            return None if text is None else PrivateKey.from_hex(text.strip().removeprefix("0x"))
        except DecodingError:
            return None

    async def _step(self, case: _Case, chain: StakeChain) -> None:
        sight = StakeSight(
            spec=case.spec,
            signer=case.signer,
            has_key=case.key is not None,
            approved=str((case.supplier["metadata"].get("annotations") or {}).get(APPROVAL, "")),
            status=case.status,
            now=self._now(),
            drain=_drain(case.supplier),
        )
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
        decision = towards_declaration(sight, plan)
        if decision.step is StakeStep.SIGN and case.key is not None:
            await self._sign(case, chain, plan, decision)
            return
        await self._write(case.supplier, decision.status, decision.condition)
        if decision.condition.state == "True":
            metadata = case.supplier["metadata"]
            place = (str(metadata["namespace"]), str(metadata["name"]))
            self._resting[place] = (_version(case.supplier), self._clock() + _REST_SECONDS)

    async def _sign(self, case: _Case, chain: StakeChain, plan: StakePlan, decision: StakeDecision) -> None:
        """Sign, record the bytes, then send, so that only recorded bytes are ever sent."""
        if case.key is None:
            return
        try:
            signed, timeout = await chain.sign(plan, case.key, lane_of(case.operator, case.status.transaction.hash))
        except TransactionWouldFail as error:
            failing = would_fail(decision, str(error))
            await self._write(case.supplier, failing.status, failing.condition)
            return
        recorded = StakeTransactionStatus(
            hash=signed.tx_hash,
            raw=base64.b64encode(signed.raw).decode(),
            expires_at=_text(timeout),
            fee_upokt=plan.cost.transaction_fee_upokt,
        )
        status = signed_status(decision.status, plan, recorded, now=self._now(), approved=decision.approved)
        await self._write(case.supplier, status, decision.condition)
        _LOG.info(
            "stake transaction sent",
            hash=signed.tx_hash,
            plan=plan.plan_hash,
            cost_upokt=plan.cost.total_upokt,
        )
        await _send(chain, signed.raw)

    async def _write(self, supplier: Object, status: StakingStatus, fact: StakeCondition | None) -> None:
        """Apply status and condition where they differ, and remove the condition without a `fact`.

        Raises Conflict where the Supplier changed since it was read.
        """
        metadata, before = supplier["metadata"], supplier.get("status") or {}
        rows = before.get("conditions") or ()
        kept: Mapping[str, Any] = next(
            (row for row in rows if row.get("type") == ConditionType.STAKE_AS_DECLARED.value), {}
        )
        generation = int(metadata.get("generation") or 0)
        after: Object = {"staking": as_status(status)}
        if fact is not None:
            after["conditions"] = [as_status(row) for row in conditions([fact], rows, generation, self._now())]
        if before.get("staking") == after["staking"] and after.get("conditions", []) == ([kept] if kept else []):
            return
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
            await self._events.post({"apiVersion": SUPPLIERS.api_version, "kind": SUPPLIERS.name, **supplier}, event)


def _is_declared(supplier: Object) -> bool:
    return (supplier.get("spec") or {}).get("stake") is not None and not supplier["metadata"].get("deletionTimestamp")


def _has_to_end(supplier: Object) -> bool:
    """Return whether a transaction or a plan of an earlier declaration is not concluded."""
    status = supplier.get("status") or {}
    staking = status.get("staking") or {}
    sent = (staking.get("transaction") or {}).get("outcome") == SentOutcome.WAITING.value
    reported = any(row.get("type") == ConditionType.STAKE_AS_DECLARED.value for row in status.get("conditions") or ())
    return sent or (reported and not supplier["metadata"].get("deletionTimestamp"))


async def _send(chain: StakeChain, raw: bytes) -> SentState:
    """Send recorded bytes.

    A refusal concludes nothing: another node may have the bytes, and an included transaction's nonce is refused, too.
    """
    sent = await chain.send(raw)
    if sent.log:
        _LOG.warning("chain nodes refused a stake transaction, sending it again until it expires", problem=sent.log)
    return sent


def _drain(supplier: Object) -> DrainProgress | None:
    """Return the drain that the reconciler reports, None without a valid one."""
    try:
        return DrainProgress.model_validate((supplier.get("status") or {})["drain"])
    except (KeyError, ValidationError):
        return None


def _text(stamp: Timestamp) -> str:
    whole = datetime.fromtimestamp(stamp.seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{stamp.nanos:09}Z"
