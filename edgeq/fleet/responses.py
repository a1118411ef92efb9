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


def status_of(name: str, status: dict[str, Any]) -> dict[str, Any]:
    """Return an answer of `status` in which all that is shown of it has the right type.

    Raises:
        AgentProtocolError: something has not; names the field.
    """
    models = status.get("models")
    if not isinstance(models, Mapping):
        raise wrong(name, "status: models", "an object", models)
    for model in models:
        since_ns = model_in(name, status, model).get("since_ns")
        if since_ns is not None and not _is_count(since_ns):
            raise wrong(name, f"status: {model}: since_ns", "a number from 0", since_ns)
    if not _is_count(status.get("free_bytes", 0)):
        raise wrong(name, "status: free_bytes", "a number from 0", status["free_bytes"])
    if status.get("trust") is not None and not _is_trust(status["trust"]):
        raise wrong(name, "status: trust", "what the device trusts", status["trust"])
    return status


def facts_problem(body: Mapping[str, Any]) -> str | None:
    """Return why the parts of `probe` that only `edgeq doctor` reads are none; None where they are right."""
    service, edgetpu = body.get("service"), body.get("edgetpu")
    if service is not None and not _is_service(service):
        return f"service: {service!r}"[:80]
    if edgetpu is not None and not _is_edgetpu(edgetpu):
        return f"edgetpu: {edgetpu!r}"[:80]
    return None


def _is_trust(trust: object) -> bool:
    return (
        isinstance(trust, Mapping)
        and isinstance(trust.get("problem"), str | None)
        and all(_is_texts(trust.get(field)) for field in ("keys", "revoked"))
        and _is_count(trust.get("threshold"))
        and isinstance(trust.get("counters"), Mapping)
        and all(
            isinstance(entry, Mapping) and _is_count(entry.get("counter")) and "release" in entry
            for entry in trust["counters"].values()
        )
    )


def _is_service(service: object) -> bool:
    if not isinstance(service, Mapping) or not isinstance(service.get("kind"), str):
        return False
    last = service.get("last")
    ended = isinstance(last, Mapping) and {"ok", "problem"} <= last.keys()
    flags = [service.get(field) for field in ("whole", "ran_in_this_boot", "seen_at_boot")]
    return all(isinstance(flag, bool) for flag in flags) and (ended or (last is None and not flags[1]))


def _is_edgetpu(edgetpu: object) -> bool:
    if not isinstance(edgetpu, Mapping) or not isinstance(edgetpu.get("loads"), bool):
        return False
    said = [edgetpu.get(field) for field in ("library", "problem")]
    return (
        all(isinstance(text, str | None) for text in said) and any(said) and _is_texts(edgetpu.get("devices"))
    )


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


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
