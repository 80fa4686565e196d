"""Read the files that users name.

Every problem becomes one error with the path, what is wrong and the remedy. No message quotes a file, which may hold
keys.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pocket.errors import ConfigurationError

T = TypeVar("T")
_UNPARSABLE = (ValueError, LookupError, AttributeError)
"""Raised by the parsers for values that are not of their type, such as the date 2026-13-45."""


class InputFileError(ConfigurationError):
    """A file cannot be used. The message names it, the problem and the remedy."""


def read_text(path: Path) -> str:
    """Return the text of a file. Raises InputFileError."""
    try:
        return decoded(path.read_bytes(), str(path))
    except OSError as error:
        raise InputFileError(f"{path}: {error.strerror}. Check the path and its permissions.") from None


def decoded(content: bytes, name: str) -> str:
    """Return the text of the bytes of a file. Raises InputFileError."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputFileError(f"{name}: not text in UTF-8 (byte {error.start + 1}): is it the right file?") from None


def yaml_documents(text: str, name: str) -> list[Any]:
    """Return the documents in the text of a YAML file. Raises InputFileError."""
    import yaml  # noqa: PLC0415 - processes that read JSON need not hold it

    def parse() -> list[Any]:
        try:
            return list(yaml.safe_load_all(text))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            position = f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""
            raise InputFileError(f"{name}: not YAML{position}: correct it there, or name another file") from None
        except yaml.YAMLError as error:
            raise _unparsable("YAML", name, error) from None

    return _parsed(parse, "YAML", name)


def json_value(text: str, name: str) -> Any:
    """Return the value in the text of a JSON file. Raises InputFileError."""
    return _parsed(lambda: json.loads(text), "JSON", name)


def read_yaml(path: Path) -> list[Any]:
    """Return the documents of a YAML file. Raises InputFileError."""
    return yaml_documents(read_text(path), str(path))


def _unparsable(form: str, name: str, error: Exception) -> InputFileError:
    return InputFileError(f"{name}: not {form} ({type(error).__name__}): check its values, or name another file")


def _parsed(parse: Callable[[], T], form: str, name: str) -> T:
    try:
        return parse()
    except json.JSONDecodeError as error:
        position = f"line {error.lineno}, column {error.colno}"
        raise InputFileError(f"{name}: not {form} ({position}): correct it there, or name another file") from None
    except _UNPARSABLE as error:
        raise _unparsable(form, name, error) from None
    except RecursionError:
        raise InputFileError(f"{name}: nested too deeply to be read: is it the right file?") from None
