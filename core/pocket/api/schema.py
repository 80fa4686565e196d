"""Declare constraints once, for pydantic and for the CRD.

The CRD holds them as CEL rules in the same words.
"""

import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from pydantic import AfterValidator, Field, GetJsonSchemaHandler
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

RULES = "x-kubernetes-validations"
_KUBERNETES_DOCS = "https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.34/"


@cache
def _kubernetes_schemas() -> dict[str, Any]:
    text = resources.files("pocket.api").joinpath("kubernetes_schemas.json").read_text(encoding="utf-8")
    schemas: dict[str, Any] = json.loads(text)
    return schemas


def kubernetes_schema(kind: str) -> dict[str, Any]:
    """Return the schema of a type that Kubernetes itself defines, such as `PodSpec`.

    Its link marks it as not described here.
    """
    return {**_kubernetes_schemas()[kind], "externalDocs": {"description": kind, "url": _KUBERNETES_DOCS}}


def unknown_fields(schema: dict[str, Any], value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield the paths of fields that a schema does not know.

    Each comes with the name of a known field that it resembles, or ''.
    """
    if isinstance(value, list) and "items" in schema:
        for number, row in enumerate(value):
            yield from unknown_fields(schema["items"], row, f"{path}.{number}")
    for name, child in value.items() if isinstance(value, dict) and "properties" in schema else ():
        if name in schema["properties"]:
            yield from unknown_fields(schema["properties"][name], child, f"{path}.{name}")
        else:
            yield f"{path}.{name}", next(iter(difflib.get_close_matches(name, schema["properties"], n=1)), "")


def rule(expression: str, message: str, shown: str = "") -> dict[str, str]:
    """Return a CEL rule as CRDs hold it.

    `shown` is a CEL expression of the message with the value in it.
    """
    return {"rule": expression, "message": message} | ({"messageExpression": shown} if shown else {})


def rules(*parts: dict[str, str]) -> dict[str, Any]:
    """Return rules for `json_schema_extra` of a field or a model."""
    return {RULES: list(parts)}


@dataclass(frozen=True)
class Cel:
    """Adds a CEL rule to the annotated type, in addition to its existing rules."""

    expression: str
    message: str
    shown: str = ""
    """A CEL expression of the message with the value in it."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the schema with the rule added."""
        schema = dict(handler(core))
        schema[RULES] = [*schema.get(RULES, []), rule(self.expression, self.message, self.shown)]
        return schema


def immutable(remedy: str) -> Cel:
    """Mark a field that may not change once set, which only the API server can check.

    The remedy describes what to do instead.
    """
    return Cel("self == oldSelf", f"is immutable: {remedy}")


def grows_only(remedy: str) -> Cel:
    """Mark a quantity that may not become smaller once set.

    Only the API server can check that.
    """
    message = f"cannot become smaller: {remedy}"
    shown = f"oldSelf + ' in the resource, ' + self + ' is smaller: {remedy}'"
    return Cel("quantity(self).compareTo(quantity(oldSelf)) >= 0", message, shown)


def at_least(quantity: str) -> Cel:
    """Mark a quantity with a lower bound, which only the API server checks."""
    message = f"must be at least {quantity}"
    return Cel(f"quantity(self).compareTo(quantity('{quantity}')) >= 0", message, f"self + ' {message}'")


def list_map(key: str) -> dict[str, Any]:
    """Mark a list whose entries are identified by a field.

    Several appliers can then own different entries.
    """
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


LIST_SET: dict[str, Any] = {"x-kubernetes-list-type": "set"}


def matching(pattern: str, message: str, *, hidden: str | None = None) -> AfterValidator:
    """Return a validator of the whole text, pydantic's half of `text`.

    The message shows a value unless it contains the text `hidden`, which '' always does.
    """
    compiled = re.compile(pattern, re.ASCII)  # as the API server reads it

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(message if hidden is not None and hidden in value else f'"{value}" {message}')
        return value

    return AfterValidator(check)


def keys_matching(pattern: str, message: str) -> tuple[AfterValidator, Cel]:
    """Return the annotations of a map whose keys must match.

    They are for `Annotated[dict[str, V], *keys_matching(...)]`.
    """
    compiled = re.compile(pattern, re.ASCII)

    def check(value: dict[str, Any]) -> dict[str, Any]:
        for key in value:
            if not compiled.fullmatch(key):
                raise ValueError(f'"{key}" {message}')
        return value

    every = f"self.all(k, k.matches({_quoted(f'^({pattern})$')}))"
    return AfterValidator(check), Cel(every, f"each key {message}")


def text(
    pattern: str, message: str, *, longest: int, description: str = "", hidden: str | None = None
) -> tuple[AfterValidator, Cel, FieldInfo]:
    """Return the annotations of a text pattern.

    They are unpacked into `Annotated[str, *text(...)]`. Messages show a value unless it contains the text `hidden`,
    which '' always does.
    """
    field: FieldInfo = Field(max_length=longest, description=description or None)
    shorter = pattern.replace("(?:", "(")  # the API server bounds a rule's cost by the length of its pattern
    matches = f"self.matches({_quoted('^(' + shorter + ')$')})"
    return matching(pattern, message, hidden=hidden), Cel(matches, message, shown_value(message, hidden)), field


def shown_value(message: str, hidden: str | None = None) -> str:
    """Return a CEL expression of a message that begins with the value.

    The value is the text `self`. It is left out if it contains the text `hidden`.
    """
    if hidden == "":
        return ""
    quoted = f"{_quoted(chr(34))} + self + {_quoted(chr(34) + ' ')}"
    if hidden is None:
        return f"{_quoted(chr(34))} + self + {_quoted(chr(34) + ' ' + message)}"
    return f"(self.contains({_quoted(hidden)}) ? '' : {quoted}) + {_quoted(message)}"


def _quoted(pattern: str) -> str:
    return "'" + pattern.replace("\\", "\\\\").replace("'", "\\'") + "'"
