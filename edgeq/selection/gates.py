"""Gates: compare each limit of a blueprint with a variant's figures."""

from __future__ import annotations

from dataclasses import dataclass

from edgeq.blueprint import Limits
from edgeq.units import format_limit, limit_key
from edgeq.values import Metrics, Variant


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
    """

    name: str
    limit: float
    value: float | None
    holds: bool | None
    written: str

    @property
    def text(self) -> str:
        """The limit under the blueprint's key, and the outcome: `size_max 64 KiB holds`."""
        outcome = {True: "holds", False: "FAILS", None: "not measured yet"}[self.holds]
        return f"{limit_key(self.name)} {self.written} {outcome}"

    @property
    def miss(self) -> str:
        """The limit beside the measured figure: `size_max 64 KiB, got 70.2 KiB`."""
        limit = self.written
        got = "unknown" if self.value is None else format_limit(self.name, self.value)
        if got == format_limit(
            self.name, self.limit
        ):  # they differ only in digits that the format leaves out
            limit, got = f"{self.limit:.9g}", f"{self.value:.9g}"
        return f"{limit_key(self.name)} {limit}, got {got}"


def gates_of(
    variant: Variant, *, baseline: Metrics, limits: Limits, measured: Measured | None = None
) -> tuple[Gate, ...]:
    """Return one gate for each limit of the blueprint.

    Args:
        baseline: the float model's metrics on the same data.
        measured: figures of a device.
    """
    metrics = variant.metrics
    drop = None
    if metrics.accuracy is not None and baseline.accuracy is not None:
        drop = baseline.accuracy - metrics.accuracy
    values: dict[str, float | None] = {
        "accuracy_drop_max": drop,
        "accuracy_min": metrics.accuracy,
        "agreement_min": metrics.agreement,
        "output_sqnr_db_min": metrics.worst_sqnr_db,
        "size_bytes_max": variant.size_bytes,
        "latency_p95_ns_max": measured.latency_p95_ns if measured else None,
        "memory_peak_bytes_max": measured.memory_peak_bytes if measured else None,
    }
    return tuple(
        Gate(
            name=name,
            limit=limit,
            value=values[name],
            holds=_holds(name, values[name], limit),
            written=limits.text(name),
        )
        for name, limit in limits.stated().items()
    )


# A share of n samples is a multiple of 1/n: a drop of exactly one point can be 0.010000000000000009 in float.
_ROUNDING = 1e-9


def _holds(name: str, value: float | None, limit: float) -> bool | None:
    if value is None:
        return None
    return value <= limit + _ROUNDING if name.endswith("_max") else value >= limit - _ROUNDING
