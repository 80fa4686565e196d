"""Reading what another version wrote: fields that this one does not know are left out, and named."""

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound=BaseModel)
_UNKNOWN = "extra_forbidden"
_ROUNDS = 16
"""What a validation names at once: a field below one that was wrong may show up in the next one only."""


def read_leniently(model: type[M], document: Mapping[str, Any]) -> tuple[M, tuple[str, ...]]:
    """Return the model without the fields that it does not know, and their paths, sorted.

    Everything else is held to the model as ever; raises pydantic's ValidationError.
    """
    known: Any = document
    unknown: set[str] = set()
    for _ in range(_ROUNDS):
        try:
            return model.model_validate(known), tuple(sorted(unknown))
        except ValidationError as error:
            extra = [row["loc"] for row in error.errors() if row["type"] == _UNKNOWN]
            if not extra:
                raise
            if known is document:
                known = copy.deepcopy(dict(document))
            for place in extra:
                _remove(known, place)
                unknown.add(".".join(str(part) for part in place))
    return model.model_validate(known), tuple(sorted(unknown))


def _remove(document: Any, place: tuple[int | str, ...]) -> None:
    for part in place[:-1]:
        document = document[part]
    document.pop(place[-1], None)
