"""A stand-in for the transport of `kubectl exec`, for tests without a cluster."""

import stat
import sys
from pathlib import Path


def kubectl_stand_in(folder: Path) -> Path:
    """Write a program that runs the command of `kubectl exec` here, on the folder that is named like the pod."""
    script = folder / "kubectl"
    script.write_text(
        f"#!{sys.executable}\n"
        "import subprocess, sys\n"
        "words = sys.argv[1:]\n"
        "if 'logs' in words:\n"
        "    print(open(sys.argv[0] + '.log').read()); sys.exit(0)\n"
        "pod, command = words[words.index('-n') + 2], words[words.index('--') + 1:]\n"
        f"command[0] = {sys.executable!r}\n"
        "if command[1] == '-c':\n"
        '    print(\'{"url": "redis://u:r3d1sp4ss@h"}\'); sys.exit(0)\n'
        f"sys.exit(subprocess.run([*command, '--data', {str(folder)!r} + '/' + pod]).returncode)\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script
