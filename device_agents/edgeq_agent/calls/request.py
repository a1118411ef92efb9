"""Reads a request: every field that reaches the disk or a process is checked here first."""

from __future__ import annotations

import json
import re
import sys
from typing import Any, Pattern

from edgeq_agent.errors import BAD_REQUEST, AgentError
from edgeq_agent.wire import Json

DEFAULT_TIMEOUT_S = 120.0
MAX_TIMEOUT_S = 24 * 3600.0
# JSON has whole numbers that no float can hold.
_LARGEST = sys.float_info.max

MODEL_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}")
SHA256 = re.compile(r"[0-9a-f]{64}")
KEY_ID = re.compile(r"[0-9a-f]{16}")
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")


def bad(field: str, expected: str, got: Any) -> AgentError:
    """Return the error for a field that is not what it must be."""
    seen = json.dumps(got, default=repr)
    return AgentError(
        BAD_REQUEST, field, expected=expected, got=seen if len(seen) <= 120 else seen[:117] + "..."
    )


def text(request: Json, field: str, default: str | None = None) -> str:
    """Return a textual field."""
    value = request.get(field, default)
    if not isinstance(value, str) or not value:
        raise bad(field, "a text", value)
    return value


def _matching(request: Json, field: str, pattern: Pattern[str], expected: str) -> str:
    value = request.get(field)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise bad(field, expected, value)
    return value


def model_name(request: Json) -> str:
    """Return the field `model`: it becomes a folder's name."""
    return _matching(request, "model", MODEL_NAME, "a model name: " + MODEL_NAME.pattern)


def sha256(request: Json, field: str) -> str:
    """Return a field that is a SHA-256 in hex: it becomes a file's name."""
    return _matching(request, field, SHA256, "64 lower-case hex digits")


def key_id(request: Json, field: str) -> str:
    """Return a field that is a key's id."""
    return _matching(request, field, KEY_ID, "16 lower-case hex digits")


def label(request: Json, field: str) -> str:
    """Return a field that only people read: a short name without spaces."""
    return _matching(request, field, LABEL, "a short name: " + LABEL.pattern)


def names(request: Json, field: str) -> list[str]:
    """Return a field that is a list of model names, each once; a missing one is empty."""
    value = request.get(field)
    if value is None:
        return []
    if not isinstance(value, list):
        raise bad(field, "a list of model names", value)
    return list(dict.fromkeys(model_name({"model": item}) for item in value))


def file_name(value: Any, field: str) -> str:
    """Return a name that becomes a file's name inside a release."""
    if not isinstance(value, str) or not FILE_NAME.fullmatch(value) or value == "manifest.json":
        raise bad(field, "a plain file name without path separators", value)
    return value


def integer(request: Json, field: str, low: int, high: int, default: int | None = None) -> int:
    """Return a whole number within [low, high]."""
    value = request.get(field)
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise bad(field, f"a whole number from {low} to {high}", value)
    return value


def seconds(request: Json, field: str, default: float, high: float = MAX_TIMEOUT_S) -> float:
    """Return a duration in seconds, above 0."""
    value = request.get(field)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= high:
        raise bad(field, f"seconds, above 0 and at most {high:g}", value)
    return float(value)


def timeout_s(request: Json) -> float:
    """Return the deadline for the model's process."""
    return seconds(request, "timeout_s", DEFAULT_TIMEOUT_S)


def number(request: Json, field: str, default: float) -> float:
    """Return a number that is not negative."""
    value = request.get(field)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _LARGEST:
        raise bad(field, "a number, 0 or more", value)
    return float(value)


def flag(request: Json, field: str, default: bool) -> bool:
    """Return a boolean field."""
    value = request.get(field, default)
    if not isinstance(value, bool):
        raise bad(field, "true or false", value)
    return value


def mapping(request: Json, field: str) -> Json:
    """Return a field that is an object."""
    value = request.get(field)
    if not isinstance(value, dict):
        raise bad(field, "an object", value)
    return value


def sizes(request: Json, field: str) -> dict[str, int]:
    """Return a field that maps SHA-256 to a size in bytes."""
    value = mapping(request, field)
    for name in value:
        if not SHA256.fullmatch(name):
            raise bad(field, "64 lower-case hex digits as keys", name)
        integer(value, name, 0, 1 << 48)
    return value


def wheels(request: Json) -> list[tuple[str, str]]:
    """Return the wheels of a runtime as (file name, SHA-256)."""
    value = request.get("wheels")
    if not isinstance(value, list):
        raise bad("wheels", "a list of {name, sha256}", value)
    found = []
    for item in value:
        if not isinstance(item, dict):
            raise bad("wheels", "objects with name and sha256", item)
        name = file_name(item.get("name"), "wheels.name")
        if not name.endswith(".whl"):
            raise bad("wheels.name", "a name that ends in .whl", name)
        found.append((name, sha256(item, "sha256")))
    return found


def native(request: Json) -> str | None:
    """Return the SHA-256 of the native program that is to be the runtime, or None."""
    value = request.get("native")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise bad("native", "an object with sha256", value)
    return sha256(value, "sha256")


def modules(request: Json, known: tuple[str, ...]) -> list[str]:
    """Return which runtime modules to try, in order; only those that the agent knows how to drive."""
    value = request.get("modules", [name for name in known if name != "tensorflow"])
    if not isinstance(value, list) or not value or any(name not in known for name in value):
        raise bad("modules", "some of " + ", ".join(known), value)
    return value
