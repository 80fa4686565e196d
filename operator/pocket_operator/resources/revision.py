"""Revisions of the workloads, and where those of the relayers run."""

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pocket_operator.resources import names

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Revision:
    """A pod template and the text of its program's configuration.

    A digest of both is its name.
    """

    template: Object = field(repr=False)
    config: str = field(repr=False)

    @property
    def name(self) -> str:
        """The digest, ten hex digits."""
        text = json.dumps([self.template, self.config], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def data(self, component: str) -> dict[str, str]:
        """Return the entries of the ConfigMap that saves it.

        The trial Redis reads no configuration.
        """
        config = {} if component == names.REDIS else {f"{component}.json": self.config}
        return {"template.json": json.dumps(self.template, sort_keys=True, indent=1), **config}

    @classmethod
    def load_saved(cls, config_map: Object | None, component: str) -> "Revision | None":
        """Read the ConfigMap. Returns None if it is missing or invalid."""
        data = (config_map or {}).get("data") or {}
        try:
            template = json.loads(data["template.json"])
            config = "" if component == names.REDIS else str(data[f"{component}.json"])
            return cls(template, config) if isinstance(template, dict) else None
        except (KeyError, ValueError):
            return None


@dataclass(frozen=True, slots=True)
class KeptRevision:
    """A revision of another release, which its pods keep until their update."""

    revision: Revision
    rendering: str
    """The rendering digest of that release, empty for one that did not note it."""
    offered: str
    """Names what this release renders instead."""


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """The revision that all relayers run, and that of a canary.

    The canary is scaled to zero if it `failed`.
    """

    steady: Revision
    canary: Revision | None = None
    failed: str = ""
    message: str = ""
    since: datetime | None = None
    """When the canary's revision started."""
