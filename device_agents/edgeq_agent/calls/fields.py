"""Read the fields of a JSON object, each with a check; requests, manifests and stored files use it.

A field becomes a path, a process argument or a state on disk, so it is checked where it is read and nowhere
else. Every refusal is EQ512 and names the field by its path ("manifest.golden.runtime").
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any, Callable, Iterable, Pattern, TypeVar

from edgeq_agent.errors import BAD_REQUEST, AgentError
from edgeq_agent.wire import Json

DEFAULT_TIMEOUT_S = 120.0
MAX_TIMEOUT_S = 24 * 3600.0
MAX_SIZE_BYTES = 1 << 48
# JSON allows integers that no float can hold.
_LARGEST_FLOAT = sys.float_info.max
_SHOWN_CHARACTERS = 120

MODEL_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}")
SHA256 = re.compile(r"[0-9a-f]{64}")
KEY_ID = re.compile(r"[0-9a-f]{16}")
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")

T = TypeVar("T")


def bad(field: str, expected: str, got: Any) -> AgentError:
    """Return the error for a field with a value that is not allowed (EQ512)."""
    shown = json.dumps(got, default=repr)
    if len(shown) > _SHOWN_CHARACTERS:
        shown = shown[: _SHOWN_CHARACTERS - 3] + "..."
    return AgentError(BAD_REQUEST, field, expected=expected, got=shown)


class Fields:
    """The fields of one JSON object.

    A missing field gets the reader's default and is refused when there is none. Null counts as missing
    for numbers, objects and lists; texts and flags refuse it.

    Args:
        body: the object as the JSON parser returned it.
        path: where the object is in its document ("manifest.golden"); empty for the document itself.

    Raises:
        AgentError: EQ512, the body is not a JSON object; every reader raises the same for its field.
    """

    def __init__(self, body: Any, path: str = "", expected: str = "an object") -> None:
        if not isinstance(body, dict):
            raise bad(path or "request", expected, body)
        self._body: Json = body
        self._path = path

    def __contains__(self, name: str) -> bool:
        """Return whether the field is present, even as null."""
        return name in self._body

    def path(self, name: str) -> str:
        """Return the field's path in its document."""
        return f"{self._path}.{name}" if self._path else name

    def json(self) -> Json:
        """Return the whole object, unchecked; for what is hashed, signed or stored as it arrived."""
        return self._body

    def raw(self, name: str) -> Any:
        """Return a field's value unchecked; None when it is missing."""
        return self._body.get(name)

    def has(self, name: str) -> bool:
        """Return whether the field is present and not null."""
        return self._body.get(name) is not None

    def refuse(self, name: str, expected: str) -> AgentError:
        """Return the error that says that a field's value is not allowed (EQ512)."""
        return bad(self.path(name), expected, self.raw(name))

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text that is not empty."""
        value = self._body.get(name, default)
        if not isinstance(value, str) or not value:
            raise self.refuse(name, "a text")
        return value

    def matching(self, name: str, pattern: Pattern[str], expected: str) -> str:
        """Return a text that matches the whole pattern."""
        value = self.raw(name)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise self.refuse(name, expected)
        return value

    def one_of(self, name: str, choices: Iterable[str], default: str | None = None) -> str:
        """Return a text that is one of the choices."""
        known = tuple(choices)
        value = self._body.get(name, default)
        if not isinstance(value, str) or value not in known:
            raise self.refuse(name, "one of " + ", ".join(known))
        return value

    def model_name(self, name: str = "model") -> str:
        """Return the name of a model; it becomes a folder's name."""
        return self.matching(name, MODEL_NAME, "a model name: " + MODEL_NAME.pattern)

    def file_name(self, name: str) -> str:
        """Return a name that becomes a file's name inside a release."""
        expected = "a plain file name without path separators"
        value = self.matching(name, FILE_NAME, expected)
        if value == "manifest.json":  # the agent writes this one itself
            raise self.refuse(name, expected)
        return value

    def sha256(self, name: str) -> str:
        """Return a SHA-256 in hex; it becomes a file's name."""
        return self.matching(name, SHA256, "64 lower-case hex digits")

    def key_id(self, name: str) -> str:
        """Return the id of a signing key."""
        return self.matching(name, KEY_ID, "16 lower-case hex digits")

    def label(self, name: str) -> str:
        """Return a short name without spaces that only people read."""
        return self.matching(name, LABEL, "a short name: " + LABEL.pattern)

    def integer(self, name: str, low: int, high: int, default: int | None = None) -> int:
        """Return an integer within [low, high]."""
        if default is not None and not self.has(name):
            return default
        value = self.raw(name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.refuse(name, f"a whole number from {low} to {high}")
        return value

    def size_bytes(self, name: str) -> int:
        """Return the size of a file in bytes."""
        return self.integer(name, 0, MAX_SIZE_BYTES)

    def number(self, name: str, default: float) -> float:
        """Return a number that is 0 or more."""
        if not self.has(name):
            return default
        value = self.raw(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _LARGEST_FLOAT:
            raise self.refuse(name, "a number, 0 or more")
        return float(value)

    def seconds(self, name: str, default: float, high: float = MAX_TIMEOUT_S) -> float:
        """Return a duration in seconds, above 0 and at most `high`."""
        if not self.has(name):
            return default
        value = self.raw(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= high:
            raise self.refuse(name, f"seconds, above 0 and at most {high:g}")
        return float(value)

    def timeout_s(self) -> float:
        """Return the field `timeout_s`: the deadline of the process that runs the model."""
        return self.seconds("timeout_s", DEFAULT_TIMEOUT_S)

    def flag(self, name: str, default: bool = False) -> bool:
        """Return a boolean; null is refused."""
        value = self._body.get(name, default)
        if not isinstance(value, bool):
            raise self.refuse(name, "true or false")
        return value

    def object(self, name: str, expected: str = "an object") -> Fields:
        """Return the fields of an object inside this one."""
        return Fields(self.raw(name), self.path(name), expected)

    def optional_object(self, name: str) -> Fields:
        """Return the fields of an object inside this one; no fields when it is missing or null."""
        return self.object(name) if self.has(name) else Fields({}, self.path(name))

    def list_of(
        self,
        name: str,
        read: Callable[[Fields, str], T],
        expected: str = "a list",
        low: int = 0,
        high: int | None = None,
    ) -> list[T]:
        """Return a list whose items are read by one of these readers: `list_of("keys", Fields.key_id)`.

        A missing or null field is an empty list.

        Args:
            expected: what the error says when it is not a list, or not of `low` to `high` items.
        """
        items = self.raw(name) if self.has(name) else []
        if not isinstance(items, list) or len(items) < low or (high is not None and len(items) > high):
            raise self.refuse(name, expected)
        return [read(Fields({name: item}, self._path), name) for item in items]

    def map_of(self, name: str, read: Callable[[Fields, str], T]) -> dict[str, T]:
        """Return an object whose values are all read by one of these readers."""
        inner = self.object(name)
        return {key: read(inner, key) for key in inner.json()}

    def model_names(self, name: str) -> list[str]:
        """Return a list of model names, each once; a missing one is empty."""
        return list(dict.fromkeys(self.list_of(name, Fields.model_name, "a list of model names")))

    def sizes(self, name: str) -> dict[str, int]:
        """Return an object that maps the SHA-256 of files to their sizes in bytes."""
        sizes = self.map_of(name, Fields.size_bytes)
        for key in sizes:
            if not SHA256.fullmatch(key):
                raise bad(self.path(name), "64 lower-case hex digits as keys", key)
        return sizes
