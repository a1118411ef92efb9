"""What a telemetry window must be before it enters the store (`edgeq.window/1`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeq_agent import wire

# A device's clock may be off; a window that ends later than this after the host's now is refused,
# since it would stay the newest one for ever.
FUTURE_TOLERANCE_NS = 24 * 3600 * 10**9
LARGEST = 2**63 - 1

_TEXTS = ("boot", "model", "release")
_COUNTS = ("seq", "started_ns", "ended_ns", "inferences")
_LATENCY = ("count", "sum_ns", "min_ns", "max_ns")


def why_refused(window: Any, *, now_ns: int) -> str | None:
    """Return why a record is no valid window, or None when it is one.

    Args:
        now_ns: the host's time since the epoch.
    """
    if not isinstance(window, Mapping):
        return f"no object but {type(window).__name__}"
    if window.get("schema") != wire.WINDOW_SCHEMA:
        return f"schema: expected {wire.WINDOW_SCHEMA}, got {window.get('schema')!r}"
    return (
        _why_fields(window)
        or _why_times(window, now_ns)
        or _why_latency(window)
        or _why_histograms(window)
        or _why_experiment(window)
    )


def _why_fields(window: Mapping[str, Any]) -> str | None:
    for name in _TEXTS:
        value = window.get(name)
        if not isinstance(value, str) or not value or len(value) > 500 or not value.isprintable():
            return f"{name}: expected a printable text, got {_short(value)}"
    for name in _COUNTS:
        if not _is_count(window.get(name)):
            return f"{name}: expected a whole number from 0, got {_short(window.get(name))}"
    if window["seq"] < 1:
        return "seq: expected 1 or more, got 0"
    errors = window.get("errors")
    if not isinstance(errors, Mapping) or not all(_is_count(number) for number in errors.values()):
        return f"errors: expected counts by kind, got {_short(errors)}"
    return None


def _why_times(window: Mapping[str, Any], now_ns: int) -> str | None:
    if window["ended_ns"] < window["started_ns"]:
        return f"ended_ns {window['ended_ns']} is before started_ns {window['started_ns']}"
    if window["ended_ns"] > now_ns + FUTURE_TOLERANCE_NS:
        hours = (window["ended_ns"] - now_ns) / 3.6e12
        return f"ended_ns is {hours:.0f} h in the future; the device's clock is wrong"
    return None


def _why_latency(window: Mapping[str, Any]) -> str | None:
    latency = window.get("latency")
    if not isinstance(latency, Mapping):
        return f"latency: expected a sketch, got {_short(latency)}"
    accuracy = latency.get("relative_accuracy")
    if isinstance(accuracy, bool) or not isinstance(accuracy, float) or not 0 < accuracy < 1:
        return f"latency.relative_accuracy: expected a number in (0, 1), got {_short(accuracy)}"
    counts = latency.get("counts")
    if not isinstance(counts, Mapping) or not all(
        _is_index(key) and _is_count(value) for key, value in counts.items()
    ):
        return f"latency.counts: expected counts by index, got {_short(counts)}"
    empty = latency.get("count") == 0
    for name in _LATENCY:
        if not _is_count(latency.get(name)) and not (empty and latency.get(name) is None):
            return f"latency.{name}: expected a whole number from 0, got {_short(latency.get(name))}"
    if sum(counts.values()) != latency["count"]:
        return f"latency.count: expected {sum(counts.values())} as in counts, got {latency['count']}"
    return None


def _why_histograms(window: Mapping[str, Any]) -> str | None:
    inputs = window.get("inputs")
    if not isinstance(inputs, list):
        return f"inputs: expected a list, got {_short(inputs)}"
    for each in inputs:
        channels = each.get("channels") if isinstance(each, Mapping) else None
        if not isinstance(channels, list) or not all(_is_counts(channel) for channel in channels):
            return f"inputs: expected counts a channel, got {_short(each)}"
    output = window.get("output")
    if not isinstance(output, Mapping):
        return f"output: expected an object, got {_short(output)}"
    for name in ("predicted", "confidence"):
        if not _is_counts(output.get(name)):
            return f"output.{name}: expected counts, got {_short(output.get(name))}"
    return None


def _why_experiment(window: Mapping[str, Any]) -> str | None:
    """None of these has to be there; an arm or experiment is null where windows of several were merged."""
    for name in ("arm", "experiment"):
        value = window.get(name)
        if value is not None and not (
            isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()
        ):
            return f"{name}: expected a printable text, got {_short(value)}"
    if not _is_count(window.get("keyed", 0)):
        return f"keyed: expected a whole number from 0, got {_short(window['keyed'])}"
    feedback = window.get("feedback", {"labelled": 0, "correct": 0})
    names = ("labelled", "correct")
    if not isinstance(feedback, Mapping) or not all(_is_count(feedback.get(name)) for name in names):
        return f"feedback: expected counts of labelled and correct, got {_short(feedback)}"
    if feedback["correct"] > feedback["labelled"]:
        return f"feedback: {feedback['correct']} correct of {feedback['labelled']} labelled"
    return None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST


def _is_counts(value: Any) -> bool:
    return isinstance(value, list) and all(_is_count(item) for item in value)


def _is_index(text: Any) -> bool:
    # The exponent of a latency: beyond this, gamma**index is no finite number.
    return (
        isinstance(text, str)
        and text.isascii()
        and text.removeprefix("-").isdecimal()
        and len(text) <= 5
        and abs(int(text)) <= 20_000
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
