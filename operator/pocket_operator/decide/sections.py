"""Read parts of resources that may have another form.

Another release's definition may have let them through.
"""

from collections.abc import Mapping
from typing import Any


def section(resource: Mapping[str, Any] | None, *path: str) -> Mapping[str, Any]:
    """Return the object at a path of a resource.

    The result is empty where there is none or something else.
    """
    value: Any = resource
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}
