"""Check whether a Supplier's key may be published, without ever showing the key."""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from pocket.api.base import problem_of
from pocket.api.lenient import read_known
from pocket.api.supplier import Supplier
from pocket.errors import DecodingError
from pocket.keys.loading import REMOTE, key_from_text
from pocket.keys.sealed_box import SealedForAnother, SealError, Subject, UnknownController
from pocket.protocol.crypto.addresses import address_of
from pocket_operator.decide.draining import has_finalizer
from pocket_operator.decide.object_cache import operator_address
from pocket_operator.decide.reasons import ConditionReason
from pocket_operator.decide.sections import section
from pocket_operator.decide.snapshot import SecretView, Snapshot

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class KeyCheck:
    """The result of checking one Supplier's key.

    `key_hex` is the key to publish, None when there is none. With a problem it is the last good key.
    """

    supplier: Object
    key_hex: str | None = field(repr=False)
    reason: ConditionReason = ConditionReason.LOADED
    message: str = ""
    resealed: str = ""
    unknown: tuple[str, ...] = ()
    """Fields that this release does not know."""

    @property
    def name(self) -> str:
        """Name of the Supplier."""
        return str(self.supplier["metadata"]["name"])

    @property
    def address(self) -> str:
        """Its operator address."""
        return operator_address(self.supplier)

    @property
    def deleting(self) -> bool:
        """True while it is being deleted."""
        return bool(self.supplier["metadata"].get("deletionTimestamp"))

    @property
    def has_finalizer(self) -> bool:
        """True if it has our finalizer."""
        return has_finalizer(self.supplier)

    @property
    def services(self) -> tuple[str, ...] | None:
        """Return the services that it is limited to, empty for all.

        The result is None if the resource is invalid here.
        """
        declared = section(self.supplier, "spec").get("services") or []
        return (
            tuple(declared) if isinstance(declared, list) and all(isinstance(name, str) for name in declared) else None
        )

    @property
    def good(self) -> bool:
        """True if the key has no problem."""
        return self.reason is ConditionReason.LOADED


class _Broken(Exception):
    def __init__(self, reason: ConditionReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def check_key(supplier: Object, snapshot: Snapshot) -> KeyCheck:
    """Return the key of one Supplier, verified against its address.

    A broken source keeps the last good key.
    """
    address = operator_address(supplier)
    owner = snapshot.owners.get(address)
    if owner not in (None, supplier["metadata"]["uid"]):
        other = snapshot.owner_names.get(address, "")
        # Sessions from before are mined to their end, as for a Supplier that is being deleted.
        last = _last_good(address, snapshot.published) if has_finalizer(supplier) else None
        return KeyCheck(
            supplier, last, ConditionReason.KEY_IN_USE,
            f"{address} is used by the older Supplier {other}. One address is served by one RelayMiner: delete one of "
            "the two.",
        )  # fmt: skip
    try:
        parsed, unknown = read_known(Supplier, {k: v for k, v in supplier.items() if k != "status"})
    except ValidationError as error:
        # The schema of another release accepted it: serving and open sessions go on.
        return KeyCheck(
            supplier, _last_good(address, snapshot.published), ConditionReason.INVALID_SPEC, problem_of(error)
        )
    try:
        key_hex, resealed = _key_of(parsed, snapshot, str(section(supplier, "status").get("resealed") or ""))
        _prove(key_hex, address)
    except _Broken as broken:
        last = _last_good(address, snapshot.published)
        kept = " The last good key stays in use." if last is not None else ""
        return KeyCheck(supplier, last, broken.reason, str(broken) + kept, unknown=unknown)
    refused = snapshot.unprotected.get(("Supplier", str(supplier["metadata"]["name"])))
    if refused is not None and not has_finalizer(supplier):
        return KeyCheck(
            supplier, _last_good(address, snapshot.published), ConditionReason.API_SERVER_REJECTED,
            f"Its finalizer cannot be added, so its key is not published: {refused}", unknown=unknown,
        )  # fmt: skip
    return KeyCheck(supplier, key_hex, resealed=resealed or "", unknown=unknown)


def _key_of(parsed: Supplier, snapshot: Snapshot, offered: str) -> tuple[str, str | None]:
    """Return the key, and a sealed one to offer in its place.

    `offered` is what the status offers now.
    """
    reference = parsed.spec.key.secret_ref
    if reference is not None:
        secret = snapshot.secrets.get(reference.name)
        if secret is None:
            raise _Broken(
                ConditionReason.SECRET_MISSING,
                f"Secret {reference.name} does not exist in namespace {parsed.metadata.namespace}. Create it.",
            )
        if secret.problem:
            raise _Broken(ConditionReason.API_SERVER_REJECTED, f"{secret.problem}.")
        text = secret.entries.get(reference.key)
        if text is None:
            raise _Broken(
                ConditionReason.SECRET_KEY_MISSING,
                f"Secret {reference.name} {secret.lacks(reference.key)}. Correct spec.key.secretRef.key or the Secret.",
            )
        return text.strip().removeprefix("0x"), None
    if parsed.spec.key.remote is not None:
        if not section(snapshot.relay_miner, "spec").get("signer"):
            raise _Broken(
                ConditionReason.SIGNER_NOT_CONFIGURED,
                "The key is remote, and the RelayMiner has no signer. Set its spec.signer.",
            )
        return f"{REMOTE}{parsed.spec.key.remote.public_key}", None
    subject = Subject(parsed.metadata.namespace, parsed.metadata.name, parsed.spec.operator_address)
    sealed = parsed.spec.key.sealed or ""
    controller = snapshot.own_sealing if snapshot.own_sealing.knows(sealed) else snapshot.controller
    try:
        return controller.open(sealed, subject), controller.reseal(sealed, subject, offered)
    except UnknownController as error:
        raise _Broken(ConditionReason.SEALING_KEY_NOT_FOUND, f"spec.key.sealed: {error}.") from None
    except SealedForAnother as error:
        raise _Broken(ConditionReason.SEALED_KEY_SCOPE_MISMATCH, f"spec.key.sealed: {error}.") from None
    except SealError as error:
        raise _Broken(ConditionReason.SEALED_KEY_INVALID, f"spec.key.sealed: {error}.") from None


@lru_cache(maxsize=8192)
def _address_of(key_hex: str) -> str:
    return address_of(key_from_text(key_hex).public_key)


def _prove(key_hex: str, address: str) -> None:
    try:
        derived = _address_of(key_hex)
    except DecodingError:
        raise _Broken(
            ConditionReason.KEY_MALFORMED,
            "The key is not a private key of 64 hex digits. Put the hex key into its source.",
        ) from None
    if derived != address:
        raise _Broken(
            ConditionReason.ADDRESS_MISMATCH,
            f"The key belongs to {derived}, not to spec.operatorAddress {address}. Name the right Secret or address.",
        )


def _last_good(address: str, published: SecretView | None) -> str | None:
    text = None if published is None else published.entries.get(address)
    if text is None:
        return None
    try:
        _prove(text, address)
    except _Broken:
        return None
    return text
