"""Generate CustomResourceDefinitions from the models.

They are structural schemas with CEL rules.
"""

from typing import Any

from pydantic import BaseModel

from pocket.api.base import GROUP, VERSION
from pocket.api.protected_namespaces import ProtectedNamespacesSpec
from pocket.api.relayminer import RelayMinerSpec
from pocket.api.schema import RULES, rule
from pocket.api.status import RelayMinerStatus, SupplierStatus
from pocket.api.supplier import SupplierSpec

_DROPPED = {"title", "additionalProperties", "const", "exclusiveMinimum", "exclusiveMaximum", "$ref", "anyOf", "allOf"}


def structural_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the OpenAPI v3 schema that an API server accepts.

    It has no references, unions or null.
    """
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _structural(schema, schema.get("$defs", {}))


def _structural(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    merged = _resolved(node, definitions)
    result = {key: value for key, value in merged.items() if key not in _DROPPED and key != "$defs"}
    if "description" in merged:
        result["description"] = " ".join(merged["description"].split())
    if "exclusiveMinimum" in merged:
        result |= {"minimum": merged["exclusiveMinimum"], "exclusiveMinimum": True}
    if merged.get("minimum", 0) % 1:
        # The API server compares a whole number with the whole part of a minimum.
        least = merged["minimum"]
        result[RULES] = [*result.get(RULES, []), rule(f"self >= {least}", f"must be at least {least}")]
    if "const" in merged:
        result["enum"] = [merged["const"]]
    default = _dense(result.pop("default", None))
    if default not in (None, [], ""):
        result["default"] = default
    if result.get("default") == {} and "properties" not in merged:
        del result["default"]
    if "properties" in merged:
        result["properties"] = {name: _structural(child, definitions) for name, child in merged["properties"].items()}
    extra = merged.get("additionalProperties")
    if isinstance(extra, dict):
        result["additionalProperties"] = _structural(extra, definitions)
    if "items" in merged:
        result["items"] = _structural(merged["items"], definitions)
    return result


def _dense(value: Any) -> Any:
    """Remove nulls and empty collections from a default.

    An object stays, since the API server fills in its fields.
    """
    if isinstance(value, dict):
        return {key: _dense(child) for key, child in value.items() if child not in (None, [], {}, "")}
    return value


def _without_defaults(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without_defaults(child) for key, child in node.items() if key != "default"}
    return node


def _compact(node: Any) -> Any:
    """Return a schema without links and repeated messages of rules.

    A message is repeated if an expression has it, too. The definition must fit into the annotation of a client-side
    apply.
    """
    if isinstance(node, list):
        return [_compact(child) for child in node]
    if not isinstance(node, dict):
        return node
    left_out = {"message"} if {"rule", "messageExpression"} <= set(node) else set()
    compact = {key: _compact(child) for key, child in node.items() if key not in left_out}
    if isinstance(docs := compact.get("externalDocs"), dict):
        docs.pop("url", None)
    return compact


def without_list_defaults(node: dict[str, Any], *, inside: bool = False) -> dict[str, Any]:
    """Return a schema without defaults inside lists.

    An API server that adds fields to the entries of a list makes what is in Git differ from what is in the cluster.
    """
    kept = {key: value for key, value in node.items() if not (inside and key == "default")}
    if "properties" in node:
        kept["properties"] = {
            name: without_list_defaults(child, inside=inside) for name, child in node["properties"].items()
        }
    if "items" in node:
        kept["items"] = without_list_defaults(node["items"], inside=True)
    return kept


def _resolved(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Resolve references and `X | None`.

    The outer description wins, and rules are combined.
    """
    inner: dict[str, Any] = {}
    if "$ref" in node:
        inner = _resolved(definitions[node["$ref"].rpartition("/")[2]], definitions)
    elif "anyOf" in node:
        (branch,) = [option for option in node["anyOf"] if option.get("type") != "null"]
        inner = _resolved(branch, definitions)
    combined = {**inner, **{key: value for key, value in node.items() if key not in {"$ref", "anyOf"}}}
    if RULES in inner and RULES in node:
        combined[RULES] = [*inner[RULES], *node[RULES]]
    return combined


def _column(name: str, path: str, *, kind: str = "string", wide: bool = False, help_text: str = "") -> dict[str, Any]:
    column: dict[str, Any] = {"name": name, "type": kind, "jsonPath": path}
    if help_text:
        column["description"] = help_text
    if wide:
        column["priority"] = 1
    return column


def _condition(name: str) -> str:
    return f'.status.conditions[?(@.type=="{name}")].status'


_NAME_RULE = rule(
    "self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
    "metadata.name must be at most 40 lower case letters, digits and -, and start with a letter: it begins the names "
    "of "
    "Services and pods",
)

_AGE = _column("Age", ".metadata.creationTimestamp", kind="date")
_READY = _column("Ready", _condition("Ready"))
_REASON = _column("Reason", '.status.conditions[?(@.type=="Ready")].reason')

_RELAY_MINER_COLUMNS = [
    _READY,
    _REASON,
    _column("Relayers", ".status.relayers.summary", help_text="Ready and wanted pods."),
    _column("Miners", ".status.miners.summary", help_text="Ready and wanted pods."),
    _column("Suppliers", ".status.suppliers", kind="integer"),
    _column("Served", ".status.served", help_text="Suppliers served and mined, of those not being deleted."),
    _column("Height", ".status.height", kind="integer"),
    _AGE,
    _column("Keys", ".status.keys.loadedBy", wide=True, help_text="Pods that have the published key set."),
    _column("Chain", ".spec.chain.id", wide=True),
    _column("Endpoint", ".status.endpoint", wide=True),
    _column("Version", ".status.version", wide=True),
]
_SUPPLIER_COLUMNS = [
    _READY,
    _REASON,
    _column("Address", ".spec.operatorAddress"),
    _column("RelayMiner", ".spec.relayMinerRef.name"),
    _column("Staked", _condition("Staked")),
    _column("Loaded", ".status.loadedBy", help_text="Pods that have the key."),
    _column("Open", ".status.openSessions", kind="integer", help_text="Sessions that are not settled yet."),
    _AGE,
    _column("Miner", ".status.miner", wide=True),
    _column(
        "Stake",
        '.status.conditions[?(@.type=="StakeAsDeclared")].reason',
        wide=True,
        help_text="How the stake compares with spec.stake.",
    ),
    _column("Last claim", ".status.last.claim", wide=True),
    _column("Last proof", ".status.last.proof", wide=True),
    _column("Last settlement", ".status.last.settlement", wide=True),
    _column(
        "Earned",
        ".status.earnedUpokt",
        kind="integer",
        wide=True,
        help_text="Paid to operator, owner and shareholders, upokt.",
    ),
]
_SCALE = {
    "specReplicasPath": ".spec.relayer.replicas",
    "statusReplicasPath": ".status.relayers.replicas",
    "labelSelectorPath": ".status.relayers.selector",
}


def _definition(
    kind: str,
    plural: str,
    short: list[str],
    schemas: tuple[type[BaseModel], type[BaseModel] | None],
    columns: list[dict[str, Any]],
    *,
    scale: dict[str, str] | None = None,
    named: dict[str, str] | None = None,
) -> dict[str, Any]:
    spec = _compact(without_list_defaults(structural_schema(schemas[0])))
    status = {"status": _without_defaults(structural_schema(schemas[1]))} if schemas[1] else {}
    subresources = {**({"status": {}} if status else {}), **({"scale": scale} if scale else {})}
    doc = f"{kind}: {spec['description']}"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}", "labels": {"app.kubernetes.io/part-of": "pocket-relay-mining"}},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                **({"shortNames": short, "categories": ["pocket"]} if short else {}),
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    **({"additionalPrinterColumns": columns} if columns else {}),
                    **({"subresources": subresources} if subresources else {}),
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "description": doc,
                            "required": ["spec"],
                            **({RULES: [named]} if named else {}),
                            "properties": {
                                "apiVersion": {"type": "string"},
                                "kind": {"type": "string"},
                                "metadata": {"type": "object"},
                                "spec": spec,
                                **status,
                            },
                        }
                    },
                }
            ],
        },
    }


def definitions() -> dict[str, dict[str, Any]]:
    """Return all kinds by plural, which also names the files.

    ProtectedNamespaces has no short name and no category, since users never create one.
    """
    relay_miner = (RelayMinerSpec, RelayMinerStatus)
    kinds = (
        _definition(
            "RelayMiner", "relayminers", ["rm"], relay_miner, _RELAY_MINER_COLUMNS, scale=_SCALE, named=_NAME_RULE
        ),
        _definition("Supplier", "suppliers", ["sup"], (SupplierSpec, SupplierStatus), _SUPPLIER_COLUMNS),
        _definition("ProtectedNamespaces", "protectednamespaces", [], (ProtectedNamespacesSpec, None), []),
    )
    return {crd["spec"]["names"]["plural"]: crd for crd in kinds}
