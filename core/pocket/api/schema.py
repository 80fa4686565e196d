"""Constraints declared once: pydantic checks them and the CRD holds them as CEL rules, in the same words."""

import re
from dataclasses import dataclass
from typing import Any

from pydantic import AfterValidator, Field, GetJsonSchemaHandler
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

RULES = "x-kubernetes-validations"
FREE_FORM = {"x-kubernetes-preserve-unknown-fields": True}
"""Parts that Kubernetes itself defines and checks: they are passed on as they are."""


def rule(expression: str, message: str) -> dict[str, str]:
    """A CEL rule as CRDs hold it."""
    return {"rule": expression, "message": message}


def rules(*parts: dict[str, str]) -> dict[str, Any]:
    """For `json_schema_extra` of a field or a model."""
    return {RULES: list(parts)}


@dataclass(frozen=True)
class Cel:
    """Adds a CEL rule to whatever it annotates, besides the rules that are there already."""

    expression: str
    message: str

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The schema with one rule more."""
        schema = dict(handler(core))
        schema[RULES] = [*schema.get(RULES, []), rule(self.expression, self.message)]
        return schema


def immutable(remedy: str) -> Cel:
    """A field that may not change once set; the remedy says what to do instead. Only the API server can check it."""
    return Cel("self == oldSelf", f"is immutable: {remedy}")


def list_map(key: str) -> dict[str, Any]:
    """A list whose entries are told apart by a field, so that several appliers can own different entries."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


LIST_SET: dict[str, Any] = {"x-kubernetes-list-type": "set"}


def matching(pattern: str, message: str) -> AfterValidator:
    """Pydantic's half of `text`."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(message)
        return value

    return AfterValidator(check)


def text(pattern: str, message: str, *, longest: int, description: str = "") -> tuple[AfterValidator, Cel, FieldInfo]:
    """A text of a form: unpack into `Annotated[str, *text(...)]`."""
    field: FieldInfo = Field(max_length=longest, description=description or None)
    return matching(pattern, message), Cel(f"self.matches({_quoted('^(?:' + pattern + ')$')})", message), field


def _quoted(pattern: str) -> str:
    return "'" + pattern.replace("\\", "\\\\").replace("'", "\\'") + "'"
