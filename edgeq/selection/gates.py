"""Gates: compare each limit of a blueprint with a variant's figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeq.blueprint import Limits, Slice
from edgeq.units import format_limit, limit_key
from edgeq.values import Metrics, Variant

if TYPE_CHECKING:
    from edgeq.evaluation import Details


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Figures of a variant measured on a device; None where they were not measured."""

    latency_p95_ns: int | None = None
    memory_peak_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One limit and whether it holds.

    Attributes:
        name: the limit's field in `Limits`, in raw units.
        value: the measured figure, or None.
        holds: None where nothing was measured: the gate is open.
        written: the limit as the blueprint states it, with its unit.
        ci95: the 95 % interval of the figure; None where it has no sampling error.
        subset: the slice of the data that it is about, or the device where there are several; else empty.
    """

    name: str
    limit: float
    value: float | None
    holds: bool | None
    written: str
    ci95: tuple[float, float] | None = None
    subset: str = ""

    @property
    def key(self) -> str:
        """The blueprint's key of the limit, with the slice that it is about: `accuracy_min (night)`."""
        return f"{limit_key(self.name)} ({self.subset})" if self.subset else limit_key(self.name)

    @property
    def shown(self) -> bool:
        """Whether it holds beyond the sampling error: the figure's whole interval is within the limit."""
        if self.holds is not True or self.ci95 is None:
            return self.holds is True
        return all(_holds(self.name, end, self.limit) is True for end in self.ci95)

    @property
    def text(self) -> str:
        """The limit under the blueprint's key, and the outcome: `size_max 64 KiB holds`."""
        outcome = {True: "holds", False: "FAILS", None: "not measured yet"}[self.holds]
        return f"{self.key} {self.written} {outcome}"

    @property
    def miss(self) -> str:
        """The limit beside the measured figure: `size_max 64 KiB, got 70.2 KiB`."""
        limit = self.written
        got = "unknown" if self.value is None else format_limit(self.name, self.value)
        if got == format_limit(
            self.name, self.limit
        ):  # they differ only in digits that the format leaves out
            limit, got = f"{self.limit:.9g}", f"{self.value:.9g}"
        return f"{self.key} {limit}, got {got}"


def gates_of(
    variant: Variant,
    *,
    baseline: Metrics,
    limits: Limits,
    measured: Measured | None = None,
    details: Details | None = None,
    slices: Sequence[Slice] = (),
) -> tuple[Gate, ...]:
    """Return one gate for each limit of the blueprint, then one for each limit of each slice.

    Args:
        baseline: the float model's metrics on the same data.
        measured: figures of a device.
        details: of the variant on the same data; without them the gates of classes, probabilities,
            corruptions and slices are open.
        slices: with their limits.
    """
    metrics = variant.metrics
    figures = {**_of_accuracy(metrics, baseline), **_of_outputs(metrics)}
    figures["size_bytes_max"] = (variant.size_bytes, None)
    if measured is not None:
        figures["latency_p95_ns_max"] = (measured.latency_p95_ns, None)
        figures["memory_peak_bytes_max"] = (measured.memory_peak_bytes, None)
    if details is not None:
        figures |= _of_details(details)
    gates = [*_gates(limits, figures)]
    for part in slices:
        gates += _gates(part.limits, _of_slice(part, details), subset=part.name)
    return tuple(gates)


def _gates(limits: Limits, figures: Mapping[str, Figure], *, subset: str = "") -> Iterator[Gate]:
    for name, limit in limits.stated().items():
        value, ci95 = figures.get(name, (None, None))
        yield Gate(
            name=name,
            limit=limit,
            value=value,
            holds=_holds(name, value, limit),
            written=limits.text(name),
            ci95=ci95,
            subset=subset,
        )


Figure = tuple[float | None, tuple[float, float] | None]
"""A value and its 95 % interval."""


def _of_accuracy(metrics: Metrics, baseline: Metrics) -> dict[str, Figure]:
    figures: dict[str, Figure] = {"accuracy_min": (metrics.accuracy, metrics.accuracy_ci95)}
    if metrics.accuracy is None or baseline.accuracy is None:
        return figures
    drop = baseline.accuracy - metrics.accuracy
    ends = metrics.accuracy_drop_ci95
    figures["accuracy_drop_max"] = (drop, ends)
    if baseline.accuracy > 0:
        # The accuracy of the float model is taken for exact: its error is common to both models.
        relative = None if ends is None else (ends[0] / baseline.accuracy, ends[1] / baseline.accuracy)
        figures["accuracy_drop_relative_max"] = (drop / baseline.accuracy, relative)
    return figures


def _of_details(details: Details) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    if details.classes is not None:
        worst = details.classes.worst
        figures["class_drop_max"] = (worst.drop, worst.drop_ci95)
    if details.probabilities is not None:
        calibration = details.probabilities.variant
        figures["ece_max"] = (calibration.ece, calibration.ece_ci95)
    if details.robustness is not None:
        figures["robustness_drop_max"] = (details.robustness.mean_drop, details.robustness.mean_drop_ci95)
    return figures


def _of_slice(part: Slice, details: Details | None) -> dict[str, Figure]:
    own = None if details is None else details.slice(part.name)
    if own is None:
        return {}
    return {
        "accuracy_drop_max": (own.drop, own.drop_ci95),
        "accuracy_min": (own.accuracy, own.accuracy_ci95),
        "agreement_min": (own.agreement, own.agreement_ci95),
    }


def _of_outputs(metrics: Metrics) -> dict[str, Figure]:
    return {
        "agreement_min": (metrics.agreement, metrics.agreement_ci95),
        "output_sqnr_db_min": (metrics.worst_sqnr_db, None),
    }


# A share of n samples is a multiple of 1/n: a drop of exactly one point can be 0.010000000000000009 in float.
_ROUNDING = 1e-9


def _holds(name: str, value: float | None, limit: float) -> bool | None:
    if value is None:
        return None
    return value <= limit + _ROUNDING if name.endswith("_max") else value >= limit - _ROUNDING
