"""Reads the known-answer vectors.

VECTORS_DIR names another folder of the same schema.
"""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

from pocket.protocol.relays.messages import SessionHeader

FOLDER = Path(os.environ.get("VECTORS_DIR") or Path(__file__).parent / "data")


@cache
def load(name: str) -> Any:
    """Content of one vector file, for example `smst` or `chain/grpc`."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def numbered(rows: list[Any]) -> list[tuple[int, Any]]:
    """Rows with their index, for test ids."""
    return list(enumerate(rows))


def unhex(text: str) -> bytes:
    """Bytes of lower-case hex."""
    return bytes.fromhex(text)


def header(fields: dict[str, Any] | None) -> SessionHeader | None:
    """Session header of a vector, None where it has none."""
    return None if fields is None else SessionHeader(**fields)
