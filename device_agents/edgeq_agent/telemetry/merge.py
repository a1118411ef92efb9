"""Merge telemetry windows of one release into one: counts add up, sketches merge, peaks take the maximum.

Device and host share this module: standard library only, Python 3.7.
"""

from __future__ import annotations

from dataclasses import fields as fields_of
from dataclasses import replace
from typing import Iterable, Mapping, Sequence, Tuple, TypeVar

from edgeq_agent.telemetry import ddsketch
from edgeq_agent.telemetry.window import (
    MIXED,
    Counts,
    Feedback,
    InputCounts,
    OutputCounts,
    Shadow,
    Window,
    WindowError,
)

_Number = TypeVar("_Number", int, float)
_Counted = TypeVar("_Counted", Feedback, Shadow)


def merge_windows(*windows: Window) -> Window:
    """Return the window that stands for several of one release, with the number of the last one.

    Counts are added, sketches merged, peaks and temperatures are the largest, times the outermost.

    Args:
        windows: in the order in which they were made; at least one.

    Raises:
        WindowError: their histograms or sketches do not match.
    """
    last = windows[-1]
    if len(windows) == 1:
        return last
    try:
        latency = ddsketch.merge(window.latency for window in windows)
    except ValueError as error:
        raise WindowError("latency.relative_accuracy", "the same in all windows", str(error)) from error
    feedback = [window.feedback for window in windows if window.feedback is not None]
    return replace(
        last,
        started_ns=min(window.started_ns for window in windows),
        ended_ns=max(window.ended_ns for window in windows),
        inferences=sum(window.inferences for window in windows),
        errors=_add_by_name([window.errors for window in windows]),
        latency=latency,
        inputs=_add_inputs([window.inputs for window in windows]),
        output=OutputCounts(
            predicted=_add("output.predicted", [window.output.predicted for window in windows]),
            confidence=_add("output.confidence", [window.output.confidence for window in windows]),
        ),
        memory_peak_bytes=_largest(window.memory_peak_bytes for window in windows),
        temperature_c=_largest(window.temperature_c for window in windows),
        deadline_misses=_sum(window.deadline_misses for window in windows),
        unrecorded=_sum(window.unrecorded for window in windows),
        arm=_common([window.arm for window in windows]),
        experiment=_common([window.experiment for window in windows]),
        keyed=sum(window.keyed for window in windows),
        feedback=_add_fields(Feedback, feedback) if feedback else None,
        shadow=_add_shadows([window.shadow for window in windows]),
        merged=sum(window.merged for window in windows),
        interrupted=sum(window.interrupted for window in windows),
        lost=sum(window.lost for window in windows),
        clock_synced=_all([window.clock_synced for window in windows]),
        uptime_ns=_largest(window.uptime_ns for window in windows),
    )


def _add(name: str, rows: Sequence[Counts]) -> Counts:
    if len({len(row) for row in rows}) > 1:
        raise WindowError(name, f"{len(rows[0])} bins as in the first window", f"{len(rows[-1])}")
    return tuple(map(sum, zip(*rows)))


def _add_inputs(windows: Sequence[Tuple[InputCounts, ...]]) -> Tuple[InputCounts, ...]:
    if len({tuple(len(each.channels) for each in inputs) for inputs in windows}) > 1:
        raise WindowError("inputs", "the same inputs and channels in all windows", "different ones")
    return tuple(
        InputCounts(
            name=parts[-1].name,
            channels=tuple(
                _add(f"inputs {parts[-1].name}", rows) for rows in zip(*(part.channels for part in parts))
            ),
        )
        for parts in zip(*windows)
    )


def _add_by_name(mappings: Sequence[Mapping[str, int]]) -> dict[str, int]:
    names = sorted({name for mapping in mappings for name in mapping})
    return {name: sum(mapping.get(name, 0) for mapping in mappings) for name in names}


def _add_shadows(windows: Sequence[Mapping[str, Shadow]]) -> dict[str, Shadow]:
    names = sorted({name for shadows in windows for name in shadows})
    return {
        name: _add_fields(Shadow, [shadows[name] for shadows in windows if name in shadows]) for name in names
    }


def _add_fields(kind: type[_Counted], parts: Sequence[_Counted]) -> _Counted:
    names = [each.name for each in fields_of(kind)]
    return kind(**{name: sum(getattr(part, name) for part in parts) for name in names})


def _largest(values: Iterable[_Number | None]) -> _Number | None:
    return max((value for value in values if value is not None), default=None)


def _sum(values: Iterable[int | None]) -> int | None:
    present = [value for value in values if value is not None]
    return sum(present) if present else None


def _all(values: Sequence[bool | None]) -> bool | None:
    """Return False when any is False, True when all are True, else None."""
    if False in values:
        return False
    return None if None in values else True


def _common(labels: Sequence[str | None]) -> str | None:
    return labels[0] if len(set(labels)) == 1 else MIXED
