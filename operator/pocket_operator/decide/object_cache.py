"""Cache of watched objects, indexed by the RelayMiner that each of them affects."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from pocket_operator.decide.packed_books import with_packed_books
from pocket_operator.decide.sections import section
from pocket_operator.resources import names
from pocket_operator.resources.kinds import CONFIG_MAPS, PODS, RELAY_MINERS, SUPPLIERS

Object = dict[str, Any]
K = TypeVar("K")
V = TypeVar("V")


class ReconcileKey(NamedTuple):
    """The unit of reconciliation: a RelayMiner that exists or that a Supplier names."""

    namespace: str
    name: str


def _version(observed: Mapping[str, Any]) -> int:
    text = str(observed["metadata"].get("resourceVersion", ""))
    return int(text) if text.isdecimal() else 0


def _identity(observed: Mapping[str, Any]) -> tuple[str, int]:
    return str(observed["metadata"].get("uid")), _version(observed)


def relay_miner_of(supplier: Mapping[str, Any]) -> ReconcileKey:
    """Return the RelayMiner that a Supplier names."""
    reference = section(supplier, "spec", "relayMinerRef")
    return ReconcileKey(str(supplier["metadata"]["namespace"]), str(reference.get("name", "")))


class ObjectCache:
    """Objects by kind, namespace and name. A late event never replaces a newer state.

    A complete listing does, since an API server whose etcd was restored counts on from an earlier version.
    """

    def __init__(self) -> None:
        self._objects: dict[str, dict[tuple[str, str], Object]] = defaultdict(dict)
        self._suppliers_of: dict[ReconcileKey, set[tuple[str, str]]] = defaultdict(set)
        self._by_address: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self._by_prefix: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self._labelled: dict[ReconcileKey, set[tuple[str, tuple[str, str]]]] = defaultdict(set)

    def put(self, kind: str, observed: Object, *, also_older: bool = False) -> set[ReconcileKey]:
        """Store an object's state, an earlier one than the known with `also_older` only.

        Returns the affected keys.
        """
        metadata = observed["metadata"]
        object_key = (str(metadata.get("namespace", "")), str(metadata["name"]))
        old = self._objects[kind].get(object_key)
        same = old is not None and old["metadata"].get("uid") == metadata.get("uid")
        if old is not None and same and _version(old) > _version(observed) and not also_older:
            return set()
        concerned = self._concerned(kind, old) | self._concerned(kind, observed)
        self._unindex(kind, object_key, old)
        if kind == SUPPLIERS.name:
            self._suppliers_of[relay_miner_of(observed)].add(object_key)
            self._by_address[operator_address(observed)].add(object_key)
        elif kind == RELAY_MINERS.name:
            self._by_prefix[prefix_of(observed)].add(object_key)
        elif (key := _labelled(observed)) is not None:
            self._labelled[key].add((kind, object_key))
        self._objects[kind][object_key] = _kept(kind, observed)
        return concerned

    def drop(self, kind: str, observed: Object) -> set[ReconcileKey]:
        """Remove a deleted object. Returns the affected keys."""
        metadata = observed["metadata"]
        object_key = (str(metadata.get("namespace", "")), str(metadata["name"]))
        concerned = self._concerned(kind, observed)
        old = self._objects[kind].get(object_key)
        if old is not None and old["metadata"].get("uid") != metadata.get("uid"):
            return concerned
        self._objects[kind].pop(object_key, None)
        self._unindex(kind, object_key, old)
        return concerned

    def identities(self, kind: str, namespace: str) -> dict[tuple[str, str], tuple[str, int]]:
        """Return uid and version of each known object, of one namespace or of all (empty)."""
        return {
            object_key: _identity(observed)
            for object_key, observed in self._objects[kind].items()
            if namespace in ("", object_key[0])
        }

    def replace(
        self, kind: str, listed: list[Object], known: Mapping[tuple[str, str], tuple[str, int]]
    ) -> set[ReconcileKey]:
        """Store a complete listing.

        What was `known` before it began and is not listed is dropped.
        """
        concerned: set[ReconcileKey] = set()
        seen = set()
        for observed in listed:
            metadata = observed["metadata"]
            object_key = (str(metadata.get("namespace", "")), str(metadata["name"]))
            seen.add(object_key)
            old = self._objects[kind].get(object_key)
            unchanged = old is not None and known.get(object_key) == _identity(old)
            concerned |= self.put(kind, observed, also_older=unchanged)
        for object_key, (uid, _) in known.items():
            observed_now = self._objects[kind].get(object_key)
            if object_key not in seen and observed_now is not None and observed_now["metadata"].get("uid") == uid:
                concerned |= self.drop(kind, observed_now)
        return concerned

    def _unindex(self, kind: str, object_key: tuple[str, str], old: Object | None) -> None:
        if old is None:
            return
        if kind == SUPPLIERS.name:
            _discard(self._suppliers_of, relay_miner_of(old), object_key)
            _discard(self._by_address, operator_address(old), object_key)
        elif kind == RELAY_MINERS.name:
            _discard(self._by_prefix, prefix_of(old), object_key)
        elif (key := _labelled(old)) is not None:
            _discard(self._labelled, key, (kind, object_key))

    def _concerned(self, kind: str, observed: Object | None) -> set[ReconcileKey]:
        if observed is None:
            return set()
        metadata = observed["metadata"]
        namespace = str(metadata.get("namespace", ""))
        if kind == RELAY_MINERS.name:
            same = {ReconcileKey(*object_key) for object_key in self._by_prefix.get(prefix_of(observed), ())}
            return {ReconcileKey(namespace, str(metadata["name"])), *same}
        if kind == SUPPLIERS.name:
            rivals = (
                self._objects[kind].get(object_key)
                for object_key in self._by_address.get(operator_address(observed), ())
            )
            return {relay_miner_of(observed), *(relay_miner_of(rival) for rival in rivals if rival is not None)}
        key = _labelled(observed)
        return set() if key is None else {key}

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """Return one object, None if it is unknown."""
        return self._objects[kind].get((namespace, name))

    def all(self, kind: str) -> tuple[Object, ...]:
        """Return all known objects of a kind."""
        return tuple(self._objects[kind].values())

    def suppliers(self, key: ReconcileKey) -> tuple[Object, ...]:
        """Return the Suppliers that name a RelayMiner, in the order of their names."""
        suppliers = (
            self._objects[SUPPLIERS.name].get(object_key) for object_key in sorted(self._suppliers_of.get(key, ()))
        )
        return tuple(supplier for supplier in suppliers if supplier is not None)

    def owner(self, address: str) -> Object | None:
        """Return the Supplier that may use an address: the oldest one that names it."""
        suppliers = [self._objects[SUPPLIERS.name].get(object_key) for object_key in self._by_address.get(address, ())]
        known = [supplier for supplier in suppliers if supplier is not None]
        if not known:
            return None
        return min(known, key=lambda s: (s["metadata"].get("creationTimestamp", ""), s["metadata"]["uid"]))

    def same_prefix(self, relay_miner: Mapping[str, Any]) -> list[Object]:
        """Return the other RelayMiners with the same prefix of Redis keys."""
        own = (str(relay_miner["metadata"]["namespace"]), str(relay_miner["metadata"]["name"]))
        object_keys = self._by_prefix.get(prefix_of(relay_miner), set()) - {own}
        return [self._objects[RELAY_MINERS.name][object_key] for object_key in sorted(object_keys)]

    def children(self, kinds: tuple[str, ...], key: ReconcileKey) -> dict[tuple[str, str], Object]:
        """Return the watched children of a RelayMiner."""
        return {
            (kind, object_key[1]): self._objects[kind][object_key]
            for kind, object_key in sorted(self._labelled.get(key, ()))
            if kind in kinds
        }

    def pods(self, key: ReconcileKey | None = None) -> Iterator[Object]:
        """Iterate over the pods of one RelayMiner, or of all, in the order of their names."""
        for one in sorted(self._labelled) if key is None else (key,):
            for kind, object_key in sorted(self._labelled.get(one, ())):
                if kind == PODS.name:
                    yield self._objects[kind][object_key]

    def everything(self) -> set[ReconcileKey]:
        """Return every key to reconcile."""
        keys = {ReconcileKey(*object_key) for object_key in self._objects[RELAY_MINERS.name]}
        for observed in self._objects[CONFIG_MAPS.name].values():
            component = (observed["metadata"].get("labels") or {}).get(names.LABEL_COMPONENT)
            if component == names.DRAIN_ANCHOR and (key := _labelled(observed)) is not None:
                keys.add(key)
        return keys | set(self._suppliers_of)


def _kept(kind: str, observed: Object) -> Object:
    """Return what the cache keeps.

    Of the many Suppliers and pods, what no decision needs is left out.
    """
    if kind in (SUPPLIERS.name, PODS.name):
        metadata = {name: value for name, value in observed["metadata"].items() if name != "managedFields"}
        observed = {**observed, "metadata": metadata}
    return with_packed_books(observed) if kind == SUPPLIERS.name else observed


def _labelled(observed: Mapping[str, Any]) -> ReconcileKey | None:
    """Return the RelayMiner that a child's label names."""
    metadata = observed["metadata"]
    name = (metadata.get("labels") or {}).get(names.LABEL_RELAY_MINER)
    return ReconcileKey(str(metadata.get("namespace", "")), str(name)) if name else None


def _discard(index: dict[K, set[V]], key: K, value: V) -> None:
    index[key].discard(value)
    if not index[key]:
        del index[key]


def prefix_of(relay_miner: Mapping[str, Any]) -> str:
    """Return the prefix of a RelayMiner's Redis keys."""
    metadata, spec = relay_miner["metadata"], section(relay_miner, "spec")
    return str(spec.get("prefix") or f"{metadata.get('namespace')}-{metadata.get('name')}")


def operator_address(supplier: Mapping[str, Any]) -> str:
    """Return the operator address that a Supplier names."""
    return str(section(supplier, "spec").get("operatorAddress", ""))
