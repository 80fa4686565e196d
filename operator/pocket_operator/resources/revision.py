"""Revisions of the relayers and where they run."""

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Revision:
    """A pod template and the text of relayer.json, named by a digest of both."""

    template: Object = field(repr=False)
    config: str = field(repr=False)

    @property
    def name(self) -> str:
        """The digest, ten hex digits."""
        text = json.dumps([self.template, self.config], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def data(self) -> dict[str, str]:
        """Return the entries of the ConfigMap that saves it."""
        return {"template.json": json.dumps(self.template, sort_keys=True, indent=1), "relayer.json": self.config}

    @classmethod
    def load_saved(cls, config_map: Object | None) -> "Revision | None":
        """Read the ConfigMap. Returns None if it is missing or invalid."""
        data = (config_map or {}).get("data") or {}
        try:
            template = json.loads(data["template.json"])
            return cls(template, str(data["relayer.json"])) if isinstance(template, dict) else None
        except (KeyError, ValueError):
            return None


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """The revision that all relayers run, and that of a canary, which is scaled to zero if it `failed`."""

    steady: Revision
    canary: Revision | None = None
    failed: str = ""
    message: str = ""
    since: datetime | None = None
    """When the canary's revision started."""
    saves: bool = False
    """True if the steady revision is saved in its ConfigMap."""
