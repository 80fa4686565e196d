"""Compile the libraries for a wheel."""

import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompileHook(BuildHookInterface):  # type: ignore[type-arg]  # hatchling's own parameter
    """Compiles `combine.so` and `trie.so`.

    They call nothing of Python, so one wheel serves every version of it.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and mark the wheel as of this platform.

        Raises RuntimeError without a C compiler.
        """
        compiled = subprocess.run(["sh", "build_libraries"], cwd=Path(self.root), check=False)
        if compiled.returncode:
            raise RuntimeError("the accelerators need a C compiler: install gcc or clang, or go without them")
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
