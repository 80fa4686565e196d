"""Read what another version wrote.

Unknown fields are reported and left out.
"""

import copy
from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pocket.api.base import UNKNOWN_FIELD

M = TypeVar("M", bound=BaseModel)


def read_known(model: type[M], value: Any) -> tuple[M, tuple[str, ...]]:
    """Validate `value` without the fields that the model does not know.

    Returns the model and the paths of the fields left out, such as `spec.relayer.shiny`. Raises ValidationError for any
    other problem.
    """
    known, left_out = value, set[str]()
    while True:
        try:
            return model.model_validate(known), tuple(sorted(left_out))
        except ValidationError as error:
            known = known if left_out else copy.deepcopy(value)
            unknown = [row["loc"] for row in error.errors() if row["type"] == UNKNOWN_FIELD]
            removed = {path for location in unknown if (path := _take_out(known, location))}
            if not removed:
                raise
            left_out |= removed


def _take_out(value: Any, location: Iterable[int | str]) -> str:
    """Remove the field at a location of pydantic's.

    Returns its path, '' if it is not there. A location also names the alternatives of unions, which are no fields: they
    are skipped.
    """
    node, path = value, list[str]()
    *parents, last = location
    for part in parents:
        if _holds(node, part):
            node = node[part]
            path.append(str(part))
    if not isinstance(node, dict) or last not in node:
        return ""
    del node[last]
    return ".".join((*path, str(last)))


def _holds(node: Any, part: int | str) -> bool:
    if isinstance(node, dict):
        return part in node
    return isinstance(node, list) and isinstance(part, int) and part < len(node)
