"""The text of a drafted blueprint: TOML with a comment for everything that a user may want to change."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import tomlkit

from edgeq.blueprint import Scheme, Task, Technique
from edgeq.drafting.limits import Limit
from edgeq.values import DeviceKind

_COMMENT_COLUMN = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class DataLine:
    """A line of `[data]`.

    Attributes:
        role: the key.
        path: relative to the blueprint.
        remark: what the file holds.
    """

    role: str
    path: str
    remark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a drafted blueprint states.

    Attributes:
        schema: path of the JSON Schema, relative to the blueprint.
        interface: lines that describe the inputs and outputs of the model.
        task: None where several are possible.
        reason: why it is this task.
        left_out: techniques that are not allowed, and why, in one sentence; empty without any.
        conditions: on arrays of the evaluation data, as a slice may have; empty without such arrays.
        kind: the kind of device that gets a table; None for an example in a comment.
    """

    schema: str
    file: str
    name: str
    source: str
    interface: Sequence[str]
    labels: Sequence[str]
    task: Task | None
    reason: str
    data: Sequence[DataLine]
    schemes: Sequence[Scheme]
    techniques: Sequence[Technique]
    left_out: str
    limit: Limit
    conditions: Sequence[str]
    kind: DeviceKind | None


def blueprint_text(content: Content) -> str:
    """Return the text of blueprint.toml."""
    parts = [
        _head(content),
        _model(content),
        _task(content),
        _data(content),
        [
            "[variants]",
            _line("schemes", content.schemes, "also: dynamic, int16x8, int8-mixed, int4, float32"),
        ],
        _techniques(content),
        [
            "[budget]",
            _line("time", "30 min", "no candidate begins later"),
            _line("seed", 0, "of everything random"),
        ],
        [
            "[require]",
            *_wrapped(content.limit.reason),
            _line(content.limit.key, content.limit.value, ""),
            '# size_max = "64 KiB"',
        ],
        _slices(content),
        _device(content),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _head(content: Content) -> list[str]:
    return [
        f"#:schema {content.schema}",
        f"# What a model must hold. `edgeq check {content.file}` checks this file.",
        "schema_version = 1",
        _line("name", content.name, "the name under which devices serve the model"),
        _line("prefer", ["size", "accuracy"], "also: sqnr, latency; the most important first"),
    ]


def _model(content: Content) -> list[str]:
    lines = ["[model]", *(f"# {_plain(line)}" for line in content.interface), _line("source", content.source)]
    return [*lines, _line("labels", content.labels)] if content.labels else lines


def _task(content: Content) -> list[str]:
    if content.task is not None:
        return ["[task]", _line("kind", content.task, content.reason)]
    kinds = ", ".join(Task)
    return [f"# The task is not certain: {_plain(content.reason)}.", "# [task]", f'# kind = "..."  # {kinds}']


def _data(content: Content) -> list[str]:
    return ["[data]", *(_line(each.role, each.path, each.remark) for each in content.data)]


def _techniques(content: Content) -> list[str]:
    lines = ["[techniques]", _line("allow", content.techniques)]
    return [*lines[:1], *_wrapped(content.left_out), *lines[1:]] if content.left_out else lines


def _slices(content: Content) -> list[str]:
    examples = "a mask (night) or a comparison with an array of the data (snr_db < 5, room == 'kitchen')"
    here = f" The data has: {', '.join(content.conditions)}." if content.conditions else ""
    where = content.conditions[0] if content.conditions else "night"
    name = re.sub(r"[^a-z0-9]+", "-", where.lower()).strip("-") or "slice"
    return [
        *_wrapped(f"A part of the evaluation data that must hold, too: {examples}.{here}"),
        "# [[slices]]",
        f"# {_line('name', name)}",
        f"# {_line('where', where)}",
        "# accuracy_drop_max = 0.02",
    ]


def _device(content: Content) -> list[str]:
    kind = content.kind or DeviceKind.RASPBERRY_PI
    table = [f"[device.{kind}]", _line("schemes", content.schemes)]
    limits = ['# latency_p95_max = "20 ms"', '# memory_peak_max = "200 MiB"']
    if content.kind is not None:
        return [*table, *limits]
    return [
        f"# Limits of one kind of device: {', '.join(DeviceKind)}.",
        *(f"# {line}" for line in table),
        *limits,
    ]


def _line(key: str, value: object, remark: str = "") -> str:
    """Return an assignment with a comment behind it."""
    line = f"{key} = {_toml(value)}"
    return f"{line.ljust(_COMMENT_COLUMN)}# {_plain(remark)}" if remark else line


def _toml(value: object) -> str:
    if isinstance(value, str):
        return tomlkit.string(str(value)).as_string()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_toml(each) for each in value)}]"
    return tomlkit.item(value).as_string()


def _plain(text: str) -> str:
    """Return a text for a comment: one line, without control characters, which TOML refuses."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


def _wrapped(text: str, width: int = 96) -> list[str]:
    """Return a text as lines of comments."""
    lines = [""]
    for word in _plain(text).split():
        if len(lines[-1]) + len(word) + 1 > width:
            lines.append("")
        lines[-1] += f" {word}"
    return [f"#{line}" for line in lines]
