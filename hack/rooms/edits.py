"""Replaces text in one file of the tree."""

import pathlib


def sub(path: str, *pairs: tuple[str, str]) -> None:
    """Replace each pair's first text by its second; name the texts that are not there."""
    file = pathlib.Path(path)
    text = file.read_text()
    for old, new in pairs:
        if old not in text:
            print("MISSING in", path, ":", old[:80])
            continue
        text = text.replace(old, new)
    file.write_text(text)
