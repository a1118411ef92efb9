"""The parsed blueprint: frozen values in raw units, with limits merged per device kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path

from edgeq.blueprint.conditions import Condition
from edgeq.units import format_limit
from edgeq.values import DeviceKind
from edgeq_converters.recipe import Effort
from edgeq_converters.values import Scheme

__all__ = ["Blueprint", "Budget", "Effort", "Limits", "Preference", "Scheme", "Slice", "Task", "Technique"]


class Task(StrEnum):
    """What a model's first output means, and so how it is judged."""

    CLASSIFICATION = "classification"
    MULTI_LABEL = "multi-label"
    REGRESSION = "regression"
    ANOMALY = "anomaly"
    DETECTION = "detection"
    SEGMENTATION = "segmentation"


class Technique(StrEnum):
    """A way to make a variant that a run may try, in the order in which a run tries them."""

    CALIBRATION = "calibration"
    MIXED_PRECISION = "mixed-precision"
    PRUNING = "pruning"
    QAT = "qat"


class Preference(StrEnum):
    """A criterion for ranking the variants that meet every limit."""

    SIZE = "size"
    ACCURACY = "accuracy"
    SQNR = "sqnr"
    LATENCY = "latency"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits that a variant must meet; None where there is no limit.

    Attributes:
        accuracy_drop_max: accuracy of the float model minus accuracy of the variant, 0..1.
        accuracy_drop_relative_max: that drop as a share of the float model's accuracy, 0..1.
        accuracy_min: accuracy of the variant, 0..1.
        class_drop_max: recall of the float model minus the variant's, of the class that loses most, 0..1.
        agreement_min: share of the float model's answers that the variant gives (`edgeq.evaluation`), 0..1.
        output_sqnr_db_min: signal-to-quantization-noise ratio of the outputs against the float model, dB.
        ece_max: expected calibration error of the variant's probabilities, 0..1.
        robustness_drop_max: accuracy of the float model minus the variant's on corrupted inputs, mean of the
            corruptions, 0..1.
        size_bytes_max: size of the `.tflite` file.
        latency_p95_ns_max: 95th percentile of one inference on the device.
        memory_peak_bytes_max: peak resident memory of the inference process on the device.
        energy_nj_max: energy of one inference on the device, nanojoules.
        written: {limit's name: text} of the sizes and durations, as the blueprint states them.
    """

    accuracy_drop_max: float | None = None
    accuracy_drop_relative_max: float | None = None
    accuracy_min: float | None = None
    class_drop_max: float | None = None
    agreement_min: float | None = None
    output_sqnr_db_min: float | None = None
    ece_max: float | None = None
    robustness_drop_max: float | None = None
    size_bytes_max: int | None = None
    latency_p95_ns_max: int | None = None
    memory_peak_bytes_max: int | None = None
    energy_nj_max: int | None = None
    written: Mapping[str, str] = field(default_factory=dict, compare=False)

    def overridden_by(self, other: Limits) -> Limits:
        """Return these limits, replaced by those of `other` where it has any."""
        stated = other.stated()
        kept = {name: text for name, text in self.written.items() if name not in stated}
        return Limits(**{**self.stated(), **stated, "written": {**kept, **other.written}})  # type: ignore[arg-type]

    def stated(self) -> dict[str, float | int]:
        """Return {name: limit} of the limits that are set."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "written"}
        return {name: value for name, value in values.items() if value is not None}

    def text(self, name: str) -> str:
        """Return a limit that is set as the blueprint states it, with its unit."""
        return self.written.get(name) or format_limit(name, getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A named part of the evaluation data that a variant must serve well, too.

    Attributes:
        where: the condition on an array of the evaluation data.
        limits: on this part; `accuracy_drop_max`, `accuracy_min` and `agreement_min` alone.
    """

    name: str
    where: Condition
    limits: Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a run may spend.

    Attributes:
        seconds: no candidate begins later than this; None without a limit.
        seed: of everything random.
    """

    seconds: float | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Blueprint:
    """A model, its data, the schemes to try and the limits that a variant must meet.

    Attributes:
        task: what the model's output means; None where the blueprint does not say it.
        training: labelled samples for pruning and QAT; None without them.
        validation: of the same form, to measure the accuracy of trained models.
        techniques: that a run may try.
        effort: how much each conversion tries.
        epochs: of each training; None derives them from the size of the training data.
        slices: parts of the evaluation data with limits of their own.
        device_schemes: the schemes that a kind of device may get; a kind that is missing may get all.
        io: type of inputs and outputs of integer variants; None takes the scheme's default.
        labels: class names.
        prefer: criteria for ranking, most important first.
        digest: SHA-256 of the parsed content; the layout of the file does not change it.
    """

    name: str
    source: Path
    calibration: Path | None
    evaluation: Path
    schemes: tuple[Scheme, ...]
    io: str | None
    labels: tuple[str, ...]
    limits: Limits
    device_limits: Mapping[DeviceKind, Limits] = field(default_factory=dict)
    device_schemes: Mapping[DeviceKind, tuple[Scheme, ...]] = field(default_factory=dict)
    task: Task | None = None
    training: Path | None = None
    validation: Path | None = None
    techniques: tuple[Technique, ...] = tuple(Technique)
    effort: Effort = Effort.STANDARD
    epochs: int | None = None
    budget: Budget = Budget()
    slices: tuple[Slice, ...] = ()
    prefer: tuple[Preference, ...] = (Preference.SIZE, Preference.ACCURACY)
    digest: str

    def kinds_with_other_limits(self, applied: DeviceKind | None) -> tuple[DeviceKind, ...]:
        """Return the device kinds whose own limits are not applied, where no kind is named."""
        stated = [kind for kind, limits in self.device_limits.items() if limits.stated()]
        return () if applied is not None else tuple(stated)

    def schemes_for(self, kind: DeviceKind | None) -> tuple[Scheme, ...]:
        """Return the schemes that a device of a kind may get; all of them without a kind."""
        allowed = self.device_schemes.get(kind) if kind is not None else None
        return self.schemes if allowed is None else tuple(each for each in self.schemes if each in allowed)

    def limits_for(self, kind: DeviceKind | None) -> Limits:
        """Return the limits for a device kind: the general ones, overridden by the kind's own."""
        own = self.device_limits.get(kind) if kind is not None else None
        return self.limits if own is None else self.limits.overridden_by(own)
