"""The measurements of one run of the demo, and their JSON document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeq.values import Metrics, Variant


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployFigures:
    """Figures of one deploy.

    Attributes:
        again_steps: number of steps in a second plan of the same bundle; 0 if the deploy was complete.
    """

    variant: str
    release: str
    sent_bytes: int
    duration_s: float
    again_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficFigures:
    """One stretch of traffic and the monitor's verdict on it.

    Attributes:
        accuracy: of the device's predictions, 0..1.
        alarm: whether the monitor reports a shift.
        e_value: evidence against "nothing has changed"; at 1/alpha the monitor raises an alarm.
        strongest: the signal with the most evidence.
        psi: its population stability index, the size of the effect.
    """

    samples: int
    windows: int
    accuracy: float
    alarm: bool
    e_value: float
    strongest: str
    psi: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """All measurements of the demo, in raw units."""

    baseline: Metrics
    variants: Sequence[Variant]
    chosen: str
    release: str
    bundle_size_bytes: int
    device: Mapping[str, Any]
    deploys: Sequence[DeployFigures]
    bench: Mapping[str, Any]
    alpha: float
    normal: TrafficFigures
    shifted: TrafficFigures
    collected_again: int
    rolled_back_to: str
    seconds_by_step: Mapping[str, float]
    report: Path

    def to_dict(self) -> dict[str, Any]:
        """Return the body of `edgeq.demo/1`."""
        return {
            "model": "digits",
            "baseline": asdict(self.baseline),
            "variants": [
                {
                    "name": variant.name,
                    "size_bytes": variant.size_bytes,
                    "sha256": variant.sha256,
                    "metrics": asdict(variant.metrics),
                }
                for variant in self.variants
            ],
            "chosen": self.chosen,
            "release": self.release,
            "bundle_size_bytes": self.bundle_size_bytes,
            "device": dict(self.device),
            "deploys": [asdict(deploy) for deploy in self.deploys],
            "bench": dict(self.bench),
            "drift": {
                "alpha": self.alpha,
                "normal": asdict(self.normal),
                "shifted": asdict(self.shifted),
                "collected_again": self.collected_again,
            },
            "rolled_back_to": self.rolled_back_to,
            "seconds_by_step": {name: round(spent, 2) for name, spent in self.seconds_by_step.items()},
            "seconds": round(sum(self.seconds_by_step.values()), 2),
            "report": str(self.report),
        }
