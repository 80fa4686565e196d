"""Types of options: ports, and names that the API server accepts."""

import re
from typing import Final

import click

PORT: Final = click.IntRange(1, 65535)
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LONGEST_LABEL: Final = 63
_LONGEST_NAME: Final = 253


class KubernetesName(click.ParamType):
    """The name of an object, or of a namespace, which has no dots."""

    name = "name"

    def __init__(self, *, namespace: bool = False) -> None:
        self._namespace = namespace

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return a valid name, and end the command with the rule for another."""
        labels = [value] if self._namespace else value.split(".")
        longest = _LONGEST_LABEL if self._namespace else _LONGEST_NAME
        if len(value) > longest or not all(_LABEL.fullmatch(label) for label in labels):
            dots = "" if self._namespace else ", and dots between them"
            self.fail(f"{value!r}: write at most {longest} lower case letters, digits and - inside{dots}", param, ctx)
        return value


NAME: Final = KubernetesName()
NAMESPACE: Final = KubernetesName(namespace=True)
