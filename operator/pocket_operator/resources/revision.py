"""Revisions of the relayers, and which of them run."""

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Revision:
    """A pod template and the text of relayer.json; `name` is a digest of both."""

    template: Object = field(repr=False)
    config: str = field(repr=False)

    @property
    def name(self) -> str:
        """Ten hex digits."""
        text = json.dumps([self.template, self.config], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def data(self) -> dict[str, str]:
        """Entries of the ConfigMap that keeps it."""
        return {"template.json": json.dumps(self.template, sort_keys=True, indent=1), "relayer.json": self.config}

    @classmethod
    def kept(cls, config_map: Object | None) -> "Revision | None":
        """From the ConfigMap; None where there is none or it cannot be read."""
        data = (config_map or {}).get("data") or {}
        try:
            template = json.loads(data["template.json"])
            return cls(template, str(data["relayer.json"])) if isinstance(template, dict) else None
        except (KeyError, ValueError):
            return None


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """What all relayers run, and what a canary tries. `failed`: the canary is scaled to none."""

    steady: Revision
    canary: Revision | None = None
    failed: str = ""
    message: str = ""
    since: datetime | None = None
    """When the canary's revision was first tried."""
    keeps: bool = False
    """Whether the steady revision is kept in its ConfigMap."""
