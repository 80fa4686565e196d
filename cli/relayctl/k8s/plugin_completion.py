"""Complete the command line of `kubectl pocket`.

kubectl runs `kubectl_complete-pocket` with the words so far.
"""

import sys

import click
from click.shell_completion import ShellComplete

from relayctl.k8s.plugin import k8s

_NO_FILES = ":4"  # cobra's ShellCompDirectiveNoFileComp
_DEFAULT = ":0"


class _Words(ShellComplete):
    """Completion for given words instead of a shell's variables."""

    name = "kubectl"


def completions(words: list[str]) -> list[str]:
    """Return the lines that kubectl expects: a proposal each, then the directive.

    The last word is incomplete.
    """
    *before, incomplete = words or [""]
    proposals = _Words(k8s, {}, "kubectl-pocket", "").get_completions(before, incomplete)
    lines = [
        f"{item.value}\t{item.help}" if item.help else str(item.value) for item in proposals if item.type == "plain"
    ]
    files = any(item.type in ("file", "dir") for item in proposals)
    return [*lines, _DEFAULT if files else _NO_FILES]


def main() -> None:
    """Print the proposals for the arguments of the process."""
    click.echo("\n".join(completions(sys.argv[1:])))


if __name__ == "__main__":
    main()
