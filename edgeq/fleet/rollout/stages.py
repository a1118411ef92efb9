"""Stages of a rollout: which devices are deployed to before the next check; the choice is stable."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import ceil

from edgeq.errors import UsageError

_HINT = "for example --stages 1,10%,50%,100% or --stages label:canary=yes,25%,100%"
_FORMS = "a count (5), a percentage (10%), label:KEY=VALUE, or all"
_COUNT = re.compile(r"[0-9]{1,9}")
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*%")
_LABEL = re.compile(r"label[:=]([^=]+)=(.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage; at most one of `count`, `percent` and `label` is set, none means all devices.

    Attributes:
        count: reach this many devices in total, including earlier stages.
        percent: reach this percentage of the selection in total, rounded up.
        label: reach every device that has this label.
        text: as it was written.
    """

    text: str
    count: int | None = None
    percent: Fraction | None = None
    label: tuple[str, str] | None = None

    def target(self, total: int) -> int:
        """Return how many devices are reached after the stage; 0 for a label, whose number is not given."""
        if self.label is not None:
            return 0
        if self.count is not None:
            return min(self.count, total)
        return total if self.percent is None else ceil(self.percent * total / 100)


def parse_stages(text: str) -> tuple[Stage, ...]:
    """Parse stages such as `1,10%,50%,100%`.

    Raises:
        UsageError: a stage is invalid, or not larger than the one before; names it.
    """
    stages = tuple(_parse(token.strip()) for token in text.split(","))
    for before, stage in pairwise(stages):
        if before.count is None and before.percent is None and before.label is None:
            raise UsageError("--stages", f"{stage.text!r} comes after `all`", hint=_HINT)
        if _smaller(stage.count, before.count) or _smaller(stage.percent, before.percent):
            raise UsageError(
                "--stages", f"{stage.text!r} is not larger than {before.text!r} before it", hint=_HINT
            )
    return stages


def partition(
    stages: Sequence[Stage], devices: Mapping[str, Mapping[str, str]], *, seed: str
) -> tuple[tuple[str, ...], ...]:
    """Return, for each stage, the names of the devices that it adds.

    The same seed and names give the same choice in any order: devices are taken in the order of
    SHA-256(seed, name). A stage may add none (10 % of a few devices, after a stage of 1).

    Args:
        devices: each name with its labels.
        seed: the rollout's id.

    Raises:
        UsageError: no device has a label, or no stage reaches some of the devices.
    """
    left = sorted(devices, key=lambda name: (_rank(seed, name), name))
    chosen: list[tuple[str, ...]] = []
    reached = 0
    for stage in stages:
        if stage.label is not None:
            key, value = stage.label
            if not any(labels.get(key) == value for labels in devices.values()):
                raise UsageError(
                    "--stages",
                    f"{stage.text!r}: no selected device has that label",
                    hint="`edgeq devices list` shows the labels",
                )
            added = tuple(name for name in left if devices[name].get(key) == value)
        else:
            added = tuple(left[: max(0, stage.target(len(devices)) - reached)])
        taken = set(added)
        left = [name for name in left if name not in taken]
        reached += len(added)
        chosen.append(added)
    if left:
        raise UsageError(
            "--stages",
            f"{len(left)} of {len(devices)} devices are in no stage",
            expected="100% or all as the last stage",
            got=repr(stages[-1].text),
            hint="end with 100%, or select fewer devices with --to",
        )
    return tuple(chosen)


def _parse(token: str) -> Stage:
    if token == "all":  # noqa: S105 - a word of the command line
        return Stage(text=token)
    if _COUNT.fullmatch(token) and int(token) > 0:
        return Stage(text=token, count=int(token))
    percent = _PERCENT.fullmatch(token)
    if percent and 0 < Fraction(percent.group(1)) <= 100:
        return Stage(text=token, percent=Fraction(percent.group(1)))
    label = _LABEL.fullmatch(token)
    if label:
        return Stage(text=token, label=(label.group(1), label.group(2)))
    raise UsageError("--stages", expected=_FORMS, got=repr(token[:80]), hint=_HINT)


def _smaller(stage: int | Fraction | None, before: int | Fraction | None) -> bool:
    return stage is not None and before is not None and stage <= before


def _rank(seed: str, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{name}".encode()).digest()
