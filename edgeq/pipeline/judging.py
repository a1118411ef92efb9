"""Judge the candidates of a run by the limits of every target: this machine, or each device."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from edgeq.blueprint import Blueprint
from edgeq.evaluation import Details
from edgeq.search.measuring import Latency
from edgeq.search.scoring import searched_schemes
from edgeq.selection import Candidate, Measured, Selection, rank
from edgeq.values import DeviceKind, Metrics, Variant
from edgeq_converters.values import Scheme

OF_DEVICE = frozenset({"latency_p95_ns_max", "memory_peak_bytes_max", "energy_nj_max"})
"""Limits that are measured on a device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the model will run.

    Attributes:
        name: of a device; empty for this machine.
        kind: whose limits apply; None for the general ones.
        latencies: {SHA-256 of a model: what was measured there}.
    """

    name: str = ""
    kind: DeviceKind | None = None
    latencies: Mapping[str, Latency] = field(default_factory=dict)

    def measured(self, variants: Sequence[Variant]) -> dict[str, Measured]:
        """Return {variant's name: figures} of the variants that were measured."""
        figures = {}
        for variant in variants:
            latency = self.latencies.get(variant.sha256)
            if latency is not None:
                figures[variant.name] = Measured(
                    latency_p95_ns=latency.p95_ns, memory_peak_bytes=latency.memory_peak_bytes
                )
        return figures


def judge(
    variants: Sequence[Variant],
    *,
    schemes: Mapping[str, Scheme],
    baseline: Metrics,
    blueprint: Blueprint,
    targets: Sequence[Target],
    details: Mapping[str, Details] | None = None,
) -> Selection:
    """Return the candidates in the order of preference, and the first that meets the limits of all targets.

    A pure function. The order is that on the first target.

    Args:
        schemes: {variant's name: its scheme}.
        baseline: the float model's metrics on the same data.
        targets: at least one.
        details: {variant's name: where it is worse than the float model}; see `gates_of`.
    """
    ranked = [_ranked(variants, schemes, baseline, blueprint, target, details) for target in targets]
    if len(ranked) == 1:
        return ranked[0]
    named = [
        {each.variant.name: _with_device(each, target.name) for each in selection.candidates}
        for selection, target in zip(ranked, targets, strict=True)
    ]
    merged = [_merged([each[name] for each in named]) for name in named[0]]
    admissible = [each for each in merged if each.admissible]
    useful = [each for each in admissible if not each.variant.metrics.useless]
    return Selection(candidates=tuple(merged), chosen=next(iter(useful or admissible), None))


def _ranked(
    variants: Sequence[Variant],
    schemes: Mapping[str, Scheme],
    baseline: Metrics,
    blueprint: Blueprint,
    target: Target,
    details: Mapping[str, Details] | None,
) -> Selection:
    return rank(
        variants,
        baseline=baseline,
        blueprint=blueprint,
        kind=target.kind,
        measured=target.measured(variants),
        details=details,
        unlisted=_unlisted(schemes, blueprint, target.kind),
    )


def _unlisted(
    schemes: Mapping[str, Scheme], blueprint: Blueprint, kind: DeviceKind | None
) -> Collection[str]:
    allowed = searched_schemes(blueprint, kind)
    return [name for name, scheme in schemes.items() if scheme not in allowed]


def _with_device(candidate: Candidate, device: str) -> Candidate:
    """Return a candidate whose gates on measurements name the device that they are about."""
    gates = tuple(
        replace(gate, subset=device) if gate.name in OF_DEVICE else gate for gate in candidate.gates
    )
    return replace(candidate, gates=gates)


def _merged(same: Sequence[Candidate]) -> Candidate:
    """Return a candidate with its gates on all targets; equal ones once."""
    gates = dict.fromkeys(gate for each in same for gate in each.gates)
    return replace(same[0], gates=tuple(gates), listed=all(each.listed for each in same))
