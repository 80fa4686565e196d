"""Constraints declared once: pydantic checks them, the CRD holds them as CEL rules in the same words."""

import re
from dataclasses import dataclass
from typing import Any

from pydantic import AfterValidator, Field, GetJsonSchemaHandler
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

RULES = "x-kubernetes-validations"
FREE_FORM = {"x-kubernetes-preserve-unknown-fields": True}
"""Parts that Kubernetes itself defines and checks, passed on unchanged."""


def rule(expression: str, message: str) -> dict[str, str]:
    """Return a CEL rule as CRDs hold it."""
    return {"rule": expression, "message": message}


def rules(*parts: dict[str, str]) -> dict[str, Any]:
    """Return rules for `json_schema_extra` of a field or a model."""
    return {RULES: list(parts)}


@dataclass(frozen=True)
class Cel:
    """Adds a CEL rule to the annotated type, in addition to its existing rules."""

    expression: str
    message: str

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the schema with the rule added."""
        schema = dict(handler(core))
        schema[RULES] = [*schema.get(RULES, []), rule(self.expression, self.message)]
        return schema


def immutable(remedy: str) -> Cel:
    """Mark a field that may not change once set, which only the API server can check.

    The remedy describes what to do instead.
    """
    return Cel("self == oldSelf", f"is immutable: {remedy}")


def list_map(key: str) -> dict[str, Any]:
    """Mark a list whose entries are identified by a field.

    Several appliers can then own different entries.
    """
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


LIST_SET: dict[str, Any] = {"x-kubernetes-list-type": "set"}


def matching(pattern: str, message: str) -> AfterValidator:
    """Return a validator of the whole text, pydantic's half of `text`."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(message)
        return value

    return AfterValidator(check)


def text(pattern: str, message: str, *, longest: int, description: str = "") -> tuple[AfterValidator, Cel, FieldInfo]:
    """Return the annotations of a text pattern, to unpack into `Annotated[str, *text(...)]`."""
    field: FieldInfo = Field(max_length=longest, description=description or None)
    return matching(pattern, message), Cel(f"self.matches({_quoted('^(?:' + pattern + ')$')})", message), field


def _quoted(pattern: str) -> str:
    return "'" + pattern.replace("\\", "\\\\").replace("'", "\\'") + "'"
