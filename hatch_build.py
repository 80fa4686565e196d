"""Record the commit that a distribution is built from."""

import os
import runpy
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CommitHook(BuildHookInterface):  # type: ignore[type-arg]  # hatchling's own parameter
    """Adds `pocket/runtime/commit.txt`, which `pocket.runtime.version` reads."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the file.

        An editable installation has none and reads the checkout's commit.
        """
        if version == "editable":
            return
        source = runpy.run_path(str(Path(self.root) / "core/pocket/runtime/version.py"))
        commit = os.environ.get("COMMIT") or source["COMMIT"]
        with tempfile.NamedTemporaryFile("w", suffix=".txt", delete=False) as file:
            file.write(f"{commit}\n")
        folder = "core/" if self.target_name == "sdist" else ""
        build_data["force_include"][file.name] = f"{folder}pocket/runtime/commit.txt"
