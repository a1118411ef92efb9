"""Merges two telemetry windows of one release into one: sums, sketches, extremes."""

from __future__ import annotations

from typing import Any

from edgeq_agent.telemetry import ddsketch
from edgeq_agent.wire import Json


def windows(older: Json, newer: Json) -> Json:
    """Return the window that stands for both, with `merged` telling how many windows it now holds."""
    body = dict(newer)
    body.update(
        started_ns=min(older["started_ns"], newer["started_ns"]),
        ended_ns=max(older["ended_ns"], newer["ended_ns"]),
        inferences=older["inferences"] + newer["inferences"],
        errors=_add_named(older["errors"], newer["errors"]),
        latency=ddsketch.merge(older["latency"], newer["latency"]),
        memory_peak_bytes=_largest(older.get("memory_peak_bytes"), newer.get("memory_peak_bytes")),
        temperature_c=_largest(older.get("temperature_c"), newer.get("temperature_c")),
        inputs=[_add_input(one, two) for one, two in zip(older["inputs"], newer["inputs"])],
        output={name: _add(older["output"][name], newer["output"][name]) for name in newer["output"]},
        merged=older.get("merged", 1) + newer.get("merged", 1),
    )
    body.update(_of_the_runtime(older, newer))
    return body


def _of_the_runtime(older: Json, newer: Json) -> Json:
    """Return the merged fields that only windows of the long-lived runtime have; none of them is required."""
    found: Json = {}
    for name in ("deadline_misses", "unrecorded", "keyed"):
        if name in older or name in newer:
            found[name] = older.get(name, 0) + newer.get(name, 0)
    for name in ("arm", "experiment"):
        if name in older or name in newer:
            found[name] = older.get(name) if older.get(name) == newer.get(name) else None
    if "feedback" in older or "feedback" in newer:
        found["feedback"] = _add_named(older.get("feedback", {}), newer.get("feedback", {}))
    if "shadow" in older or "shadow" in newer:
        first, second = older.get("shadow", {}), newer.get("shadow", {})
        found["shadow"] = {
            name: _add_named(first.get(name, {}), second.get(name, {})) for name in sorted({*first, *second})
        }
    return found


def _add_input(one: Json, two: Json) -> Json:
    channels = [_add(first, second) for first, second in zip(one["channels"], two["channels"])]
    return {"name": two["name"], "channels": channels}


def _add(one: list[int], two: list[int]) -> list[int]:
    return [first + second for first, second in zip(one, two)]


def _add_named(one: Json, two: Json) -> Json:
    return {name: one.get(name, 0) + two.get(name, 0) for name in sorted({*one, *two})}


def _largest(one: Any | None, two: Any | None) -> Any | None:
    present = [value for value in (one, two) if value is not None]
    return max(present) if present else None
