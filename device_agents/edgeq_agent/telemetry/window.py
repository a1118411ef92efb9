"""The telemetry window (`edgeq.window/1`): its fields, its validation and its JSON form.

A window holds counts of one release on one device over a stretch of time, never an input. The device builds,
merges and sends windows; the host parses the same values. This module is the only one that knows the format.

Device and host share this module: standard library only, Python 3.7.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from dataclasses import fields as fields_of
from typing import Any, Callable, Mapping, Tuple

from edgeq_agent.calls.fields import Fields, bad
from edgeq_agent.errors import AgentError
from edgeq_agent.telemetry.ddsketch import Sketch
from edgeq_agent.wire import Json

SCHEMA = "edgeq.window/1"
# Counts up to here are exact in the floats of the host's statistics.
LARGEST_COUNT = 2**53
# `arm` and `experiment` of a window that was merged from windows of several; null in JSON.
MIXED = ""
LARGEST = 2**63 - 1

_LONGEST_TEXT = 500
_LONGEST_LABEL = 200
_LONGEST_TENSOR_NAME = 10_000
# A finer sketch than any agent's would have more buckets.
_LARGEST_BUCKET = 20_000
_HOTTEST_C = 1000

Counts = Tuple[int, ...]


class WindowError(ValueError):
    """A JSON value is not a valid window, or windows do not match.

    Attributes:
        field: the field at fault, with dots: `latency.counts`.
        expected, got: what it must be, and what it is (shortened).
    """

    def __init__(self, field: str, expected: str, got: str) -> None:
        super().__init__(f"{field}: expected {expected}, got {got}")
        self.field = field
        self.expected = expected
        self.got = got


@dataclass(frozen=True)
class InputCounts:
    """Samples of one model input by bin of the drift reference.

    Attributes:
        name: the input tensor's name.
        channels: for each channel the samples whose mean lies in each bin; the end bins include all outside.
    """

    name: str
    channels: Tuple[Counts, ...]


@dataclass(frozen=True)
class OutputCounts:
    """Answers by predicted class, and by bin of the confidence in it."""

    predicted: Counts
    confidence: Counts


@dataclass(frozen=True)
class Feedback:
    """What the application reported on answers.

    Attributes:
        labelled: answers with feedback.
        correct: of these, the right ones.
        expired: answers for which no feedback came before their ticket was dropped.
    """

    labelled: int = 0
    correct: int = 0
    expired: int = 0


@dataclass(frozen=True)
class Shadow:
    """The release compared with a shadow model on sampled inputs.

    Attributes:
        samples: inferences that were compared.
        agree: of these, those with the same predicted class.
        signal: sum of the squares of the shadow's outputs.
        noise: sum of the squares of the differences; 10 log10(signal / noise) is the SQNR in dB.
        dropped: sampled inferences that the shadow's queue had no room for.
        failed: sampled inferences on which the shadow failed.
    """

    samples: int = 0
    agree: int = 0
    signal: float = 0.0
    noise: float = 0.0
    dropped: int = 0
    failed: int = 0


@dataclass(frozen=True)
class Window:
    """Counts of one release on one device over a stretch of time.

    The first five fields are empty until the outbox numbers the window; `parse` requires them.

    Attributes:
        device_id: the device's own id.
        boot: the boot, and the outbox file, that `seq` belongs to.
        seq: the window's number in its boot, from 1.
        model, release: what ran.
        started_ns, ended_ns: the device's clock, ns since the epoch; the clock may be wrong.
        inferences: all of them, failed ones included.
        errors: failed inferences by kind.
        latency: latencies of the inferences that the runtime finished.
        inputs: one entry for each input that the release's drift reference knows.
        output: predicted classes and confidences.
        memory_peak_bytes: peak resident memory of the process; None where the device cannot measure it.
        temperature_c: the processor's temperature when the window ended; None where there is no sensor.
        deadline_misses: late answers; None in windows of the verb `infer`, whose calls have no deadline.
        unrecorded: inferences that are missing in `latency`, `inputs` and `output` because the recorder was
            behind; None in windows of the verb `infer`, which drops none.
        arm: the arm of an A/B split, or `MIXED`; None outside of a split.
        experiment: the experiment that the split belongs to, or `MIXED`; None outside of an experiment.
        keyed: inferences whose arm was chosen by a caller's key.
        feedback: None where the application gave none.
        shadow: by the shadow's name.
        merged: how many windows of the device this one stands for.
        interrupted: of these, those whose process was killed: their calls are only counted, as `unrecorded`.
        lost: of the interrupted ones, those that began and of which nothing else is known, not even counts.
        clock_synced: False where the device's clock was not set, or was changed during the window; None where
            that is not known. Its duration is right in any case.
        uptime_ns: the time since the device's boot when the window ended; None from older agents.
    """

    started_ns: int
    ended_ns: int
    inferences: int
    errors: Mapping[str, int]
    latency: Sketch
    inputs: Tuple[InputCounts, ...]
    output: OutputCounts
    memory_peak_bytes: int | None = None
    temperature_c: float | None = None
    deadline_misses: int | None = None
    unrecorded: int | None = None
    arm: str | None = None
    experiment: str | None = None
    keyed: int = 0
    feedback: Feedback | None = None
    shadow: Mapping[str, Shadow] = field(default_factory=dict)
    merged: int = 1
    interrupted: int = 0
    lost: int = 0
    clock_synced: bool | None = None
    uptime_ns: int | None = None
    device_id: str = ""
    boot: str = ""
    seq: int = 0
    model: str = ""
    release: str = ""


def parse(body: Any) -> Window:
    """Return the window of a JSON value; unknown fields are ignored.

    Raises:
        WindowError: it is not a valid window.
    """
    return _checked(_numbered, body)


def parse_unnumbered(body: Any) -> Window:
    """Return the window of a JSON value that has not been in an outbox: without schema, device and number.

    Raises:
        WindowError: it is not a valid window.
    """
    return _checked(_content, body)


def _checked(read: Callable[[Fields], Window], body: Any) -> Window:
    try:
        return read(Fields(body, expected="a window"))
    except AgentError as error:
        raise WindowError(error.subject, str(error.expected), str(error.got)) from error


def _numbered(fields: Fields) -> Window:
    if fields.raw("schema") != SCHEMA:
        raise fields.refuse("schema", SCHEMA)
    return replace(
        _content(fields),
        device_id=_text(fields, "device_id"),
        boot=_text(fields, "boot"),
        seq=fields.integer("seq", 1, LARGEST),
        model=_text(fields, "model"),
        release=_text(fields, "release"),
    )


def _content(fields: Fields) -> Window:
    window = Window(
        started_ns=_count(fields, "started_ns"),
        ended_ns=_count(fields, "ended_ns"),
        inferences=fields.integer("inferences", 0, LARGEST_COUNT),
        errors=_errors(fields),
        latency=_latency(fields.object("latency", "a sketch")),
        inputs=_inputs(fields),
        output=_output(fields.object("output")),
        memory_peak_bytes=_optional_count(fields, "memory_peak_bytes"),
        temperature_c=_temperature(fields),
        deadline_misses=_optional_count(fields, "deadline_misses"),
        unrecorded=_optional_count(fields, "unrecorded"),
        arm=_label(fields, "arm"),
        experiment=_label(fields, "experiment"),
        keyed=fields.integer("keyed", 0, LARGEST, default=0),
        feedback=_feedback(fields.object("feedback")) if "feedback" in fields else None,
        shadow=_shadows(fields.object("shadow")) if "shadow" in fields else {},
        merged=fields.integer("merged", 1, LARGEST, default=1),
        interrupted=fields.integer("interrupted", 0, LARGEST, default=0),
        lost=fields.integer("lost", 0, LARGEST, default=0),
        clock_synced=fields.flag("clock_synced") if fields.has("clock_synced") else None,
        uptime_ns=_optional_count(fields, "uptime_ns"),
    )
    failed = sum(window.errors.values())
    if failed > window.inferences:
        raise fields.refuse("errors", f"at most inferences, {window.inferences}")
    if window.ended_ns < window.started_ns:
        raise fields.refuse("ended_ns", f"at least started_ns, {window.started_ns}")
    return window


def to_json(window: Window) -> Json:
    """Return a window's JSON value; the fields of a number are left out until the window has one."""
    body: Json = {
        "started_ns": window.started_ns,
        "ended_ns": window.ended_ns,
        "inferences": window.inferences,
        "errors": dict(window.errors),
        "latency": window.latency.to_json(),
        "memory_peak_bytes": window.memory_peak_bytes,
        "temperature_c": window.temperature_c,
        "inputs": [
            {"name": each.name, "channels": [list(channel) for channel in each.channels]}
            for each in window.inputs
        ],
        "output": {
            "predicted": list(window.output.predicted),
            "confidence": list(window.output.confidence),
        },
    }
    body.update(_optional_fields(window))
    if window.seq:
        body.update(
            schema=SCHEMA,
            device_id=window.device_id,
            boot=window.boot,
            seq=window.seq,
            model=window.model,
            release=window.release,
        )
    return body


def _optional_fields(window: Window) -> Json:
    """Return the fields that a window has only where there is something to say."""
    body: Json = {}
    for name, count in (("deadline_misses", window.deadline_misses), ("unrecorded", window.unrecorded)):
        if count is not None:
            body[name] = count
    for name, label in (("arm", window.arm), ("experiment", window.experiment)):
        if label is not None:
            body[name] = None if label == MIXED else label
    if window.keyed:
        body["keyed"] = window.keyed
    if window.feedback is not None:
        body["feedback"] = {each.name: getattr(window.feedback, each.name) for each in fields_of(Feedback)}
    if window.shadow:
        body["shadow"] = {name: _shadow_json(shadow) for name, shadow in window.shadow.items()}
    if window.merged > 1:
        body["merged"] = window.merged
    for name, windows in (("interrupted", window.interrupted), ("lost", window.lost)):
        if windows:
            body[name] = windows
    for name, value in (("clock_synced", window.clock_synced), ("uptime_ns", window.uptime_ns)):
        if value is not None:
            body[name] = value
    return body


def _shadow_json(shadow: Shadow) -> Json:
    always = ("samples", "agree", "signal", "noise") if shadow.samples else ()
    counts = {each.name: getattr(shadow, each.name) for each in fields_of(Shadow)}
    return {name: count for name, count in counts.items() if count or name in always}


def _count(fields: Fields, name: str) -> int:
    return fields.integer(name, 0, LARGEST)


def _optional_count(fields: Fields, name: str) -> int | None:
    return _count(fields, name) if fields.has(name) else None


def _text(fields: Fields, name: str, longest: int = _LONGEST_TEXT) -> str:
    value = fields.raw(name)
    if not _is_text(value, longest):
        raise fields.refuse(name, f"a printable text of at most {longest} characters")
    return str(value)


def _label(fields: Fields, name: str) -> str | None:
    if name not in fields:
        return None
    return _text(fields, name, _LONGEST_LABEL) if fields.has(name) else MIXED


def _errors(fields: Fields) -> Mapping[str, int]:
    errors = fields.raw("errors")
    if not isinstance(errors, dict) or not all(
        _is_text(kind, _LONGEST_LABEL) and _is_count(count) for kind, count in errors.items()
    ):
        raise fields.refuse("errors", "counts by kind")
    return dict(errors)


def _temperature(fields: Fields) -> float | None:
    value = fields.raw("temperature_c")
    if value is None:
        return None
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not -_HOTTEST_C <= value <= _HOTTEST_C:
        raise fields.refuse("temperature_c", f"a number from -{_HOTTEST_C} to {_HOTTEST_C}")
    return float(value)


def _latency(fields: Fields) -> Sketch:
    accuracy = fields.raw("relative_accuracy")
    if not isinstance(accuracy, float) or not 0 < accuracy < 1:
        raise fields.refuse("relative_accuracy", "a number in (0, 1)")
    counts = fields.raw("counts")
    if not isinstance(counts, dict) or not all(
        _is_bucket(index) and _is_count(count) for index, count in counts.items()
    ):
        raise fields.refuse("counts", "counts by bucket index")
    last = _last_bucket(accuracy)
    if any(int(index) > last for index in counts):
        raise fields.refuse("counts", f"bucket indexes up to {last}")
    count = _count(fields, "count")
    if count != sum(counts.values()):
        raise fields.refuse("count", f"{sum(counts.values())}, the sum of counts")
    # An empty sketch may have null here.
    default = None if count else 0
    sketch = Sketch(
        relative_accuracy=accuracy,
        counts={int(index): number for index, number in counts.items()},
        count=count,
        sum_ns=fields.integer("sum_ns", 0, LARGEST, default),
        min_ns=fields.integer("min_ns", 0, LARGEST, default),
        max_ns=fields.integer("max_ns", 0, LARGEST, default),
    )
    if sketch.max_ns < sketch.min_ns:
        raise fields.refuse("max_ns", f"at least min_ns, {sketch.min_ns}")
    return sketch


def _inputs(fields: Fields) -> Tuple[InputCounts, ...]:
    entries = fields.raw("inputs")
    if not isinstance(entries, list):
        raise fields.refuse("inputs", "a list")
    return tuple(_input(entry) for entry in entries)


def _input(entry: Any) -> InputCounts:
    fields = Fields(entry, "inputs", "a name and channels for each input")
    name, channels = fields.raw("name"), fields.raw("channels")
    if not isinstance(name, str) or len(name) > _LONGEST_TENSOR_NAME:
        raise fields.refuse("name", f"a text of at most {_LONGEST_TENSOR_NAME} characters")
    if not isinstance(channels, list) or not all(_is_counts(channel) for channel in channels):
        raise fields.refuse("channels", "a list of counts for each channel")
    return InputCounts(name=name, channels=tuple(tuple(channel) for channel in channels))


def _output(fields: Fields) -> OutputCounts:
    for name in ("predicted", "confidence"):
        if not _is_counts(fields.raw(name)):
            raise fields.refuse(name, "a list of counts")
    return OutputCounts(predicted=tuple(fields.raw("predicted")), confidence=tuple(fields.raw("confidence")))


def _feedback(fields: Fields) -> Feedback:
    feedback = Feedback(
        labelled=_count(fields, "labelled"),
        correct=_count(fields, "correct"),
        expired=fields.integer("expired", 0, LARGEST, default=0),
    )
    if feedback.correct > feedback.labelled:
        raise fields.refuse("correct", f"at most labelled, {feedback.labelled}")
    return feedback


def _shadows(fields: Fields) -> Mapping[str, Shadow]:
    shadows = {}
    for name in fields.json():
        if not _is_text(name, _LONGEST_TEXT):
            raise bad("shadow", "printable names", name)
        shadows[name] = _shadow(fields.object(name))
    return shadows


def _shadow(fields: Fields) -> Shadow:
    shadow = Shadow(
        samples=fields.integer("samples", 0, LARGEST, default=0),
        agree=fields.integer("agree", 0, LARGEST, default=0),
        signal=fields.number("signal", 0.0),
        noise=fields.number("noise", 0.0),
        dropped=fields.integer("dropped", 0, LARGEST, default=0),
        failed=fields.integer("failed", 0, LARGEST, default=0),
    )
    if shadow.agree > shadow.samples:
        raise fields.refuse("agree", f"at most samples, {shadow.samples}")
    return shadow


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LARGEST_COUNT  # a bool is not a count


def _is_counts(value: Any) -> bool:
    # Without a call for each item: a window may hold thousands, and the host parses thousands of windows.
    if not isinstance(value, list) or set(map(type, value)) - {int}:
        return False
    return not value or (min(value) >= 0 and max(value) <= LARGEST_COUNT)


def _is_text(value: Any, longest: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= longest and value.isprintable()


def _last_bucket(accuracy: float) -> int:
    """Return the bucket of the largest latency, beyond which an index is made up and overflows floats."""
    log_gamma = math.log1p(accuracy) - math.log1p(-accuracy)
    return (
        min(_LARGEST_BUCKET, math.ceil(math.log(LARGEST) / log_gamma) + 1) if log_gamma else _LARGEST_BUCKET
    )


def _is_bucket(index: Any) -> bool:
    if not isinstance(index, str) or len(index) > 6 or not index.isascii():
        return False
    digits = index[1:] if index.startswith("-") else index
    return digits.isdecimal() and int(digits) <= _LARGEST_BUCKET
