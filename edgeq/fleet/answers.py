"""What is read of an agent's answers, checked: a device may say anything."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeq.errors import AgentProtocolError

_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lacking:
    """The answer of `missing`: digests that a device does not have, and of which it has a part."""

    missing: tuple[str, ...]
    begun: tuple[str, ...]


def lacking(name: str, answer: Mapping[str, Any]) -> Lacking:
    """Return the answer of `missing`.

    Raises:
        AgentProtocolError: it is none; names the field.
    """
    found = {}
    for field in ("missing", "begun"):
        digests = answer.get(field)
        good = isinstance(digests, list) and all(
            isinstance(digest, str) and _SHA256.fullmatch(digest) for digest in digests
        )
        if not good:
            raise wrong(name, f"missing: {field}", "a list of digests", digests)
        found[field] = tuple(digests or ())
    return Lacking(missing=found["missing"], begun=found["begun"])


def model_in(name: str, status: Mapping[str, Any], model: str) -> Mapping[str, Any]:
    """Return what an answer of `status` says of a model; nothing where the device does not know it.

    Raises:
        AgentProtocolError: it is no such answer; names the field.
    """
    models = status.get("models")
    if not isinstance(models, Mapping):
        raise wrong(name, "status: models", "an object", models)
    entry = models.get(model, {})
    if not isinstance(entry, Mapping):
        raise wrong(name, f"status: {model}", "an object", entry)
    current = entry.get("current")
    if current is not None and not (isinstance(current, str) and _SHA256.fullmatch(current)):
        raise wrong(name, f"status: {model}: current", "a release", current)
    if not isinstance(entry.get("staged", {}), Mapping):
        raise wrong(name, f"status: {model}: staged", "an object", entry["staged"])
    return entry


def changed(name: str, verb: str, answer: Mapping[str, Any]) -> bool:
    """Return whether a verb changed something.

    Raises:
        AgentProtocolError: the answer does not say so.
    """
    found = answer.get("changed")
    if not isinstance(found, bool):
        raise wrong(name, f"{verb}: changed", "true or false", found)
    return found


def wrong(name: str, field: str, expected: str, got: object) -> AgentProtocolError:
    """Return the error for a field of an answer that is not what it must be."""
    return AgentProtocolError(name, field, expected=expected, got=repr(got)[:80])
