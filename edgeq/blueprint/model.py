"""The blueprint as the rest of edgeq sees it: frozen, in raw units, with limits merged for a device kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path

from edgeq.values import DeviceKind
from edgeq_converters.values import Scheme

__all__ = ["Blueprint", "Limits", "Preference", "Scheme"]


class Preference(StrEnum):
    """What to look at, in order, among variants that hold every limit."""

    SIZE = "size"
    ACCURACY = "accuracy"
    SQNR = "sqnr"
    LATENCY = "latency"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What must hold; None where nothing is asked.

    Attributes:
        accuracy_drop_max: accuracy of float minus accuracy of the variant, 0..1.
        accuracy_min: accuracy itself, 0..1.
        agreement_min: share of samples with float's largest output, 0..1.
        output_sqnr_db_min: signal to quantization noise of the outputs against float, dB.
        size_bytes_max: size of the `.tflite` file.
        latency_p95_ns_max: 95th percentile of one inference on the device.
        memory_peak_bytes_max: peak resident memory of the inference process on the device.
    """

    accuracy_drop_max: float | None = None
    accuracy_min: float | None = None
    agreement_min: float | None = None
    output_sqnr_db_min: float | None = None
    size_bytes_max: int | None = None
    latency_p95_ns_max: int | None = None
    memory_peak_bytes_max: int | None = None

    def overridden_by(self, other: Limits) -> Limits:
        """Return these limits with those that `other` states."""
        merged = {}
        for entry in fields(self):
            stated = getattr(other, entry.name)
            merged[entry.name] = getattr(self, entry.name) if stated is None else stated
        return Limits(**merged)

    def stated(self) -> dict[str, float | int]:
        """Return only what is asked."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Blueprint:
    """What must hold, of which model, proved with which data.

    Attributes:
        digest: SHA-256 of the parsed content; the same however the file is laid out.
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
    prefer: tuple[Preference, ...] = (Preference.SIZE, Preference.ACCURACY)
    digest: str

    def limits_for(self, kind: DeviceKind | None) -> Limits:
        """Return the limits on a device of `kind`: the general ones with the kind's own on top."""
        own = self.device_limits.get(kind) if kind is not None else None
        return self.limits if own is None else self.limits.overridden_by(own)
