"""Candidates, blueprints and selections for tests of the pipeline's pure functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeq.blueprint import Blueprint, Limits, Preference, Scheme
from edgeq.selection import Measured, Selection, rank
from edgeq.values import Metrics, Variant

BASELINE = Metrics(samples=1000, accuracy=0.9)


def blueprint(limits: Limits | None = None, **changed: Any) -> Blueprint:
    """Return a blueprint of int8 and float16 with limits."""
    values: dict[str, Any] = {
        "name": "b",
        "source": Path("model.keras"),
        "calibration": Path("calibration.npz"),
        "evaluation": Path("evaluation.npz"),
        "schemes": (Scheme.FLOAT16, Scheme.INT8),
        "io": None,
        "labels": (),
        "limits": limits or Limits(),
        "prefer": (Preference.SIZE,),
        "digest": "0",
    }
    return Blueprint(**{**values, **changed})


def variant(
    name: str, size_bytes: int, accuracy: float = 0.9, *, doubt: float = 0.0, sqnr_db: float = 30.0
) -> Variant:
    """Return a variant whose accuracy drop is known up to a doubt on either side."""
    drop = 0.9 - accuracy
    metrics = Metrics(
        samples=1000,
        accuracy=accuracy,
        output_sqnr_db=sqnr_db,
        accuracy_drop=drop,
        accuracy_drop_ci95=(drop - doubt, drop + doubt),
    )
    return Variant(name=name, path=Path(name), sha256=name, size_bytes=size_bytes, metrics=metrics)


def selected(
    plan: Blueprint, *variants: Variant, p95_ns: dict[str, int] | None = None, unlisted: tuple[str, ...] = ()
) -> Selection:
    """Return the selection among variants, whose latencies may be known."""
    measured = {name: Measured(latency_p95_ns=ns) for name, ns in (p95_ns or {}).items()}
    return rank(variants, baseline=BASELINE, blueprint=plan, measured=measured, unlisted=unlisted)
