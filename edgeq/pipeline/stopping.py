"""The rule that ends a run: a pure function of the candidates' gates."""

from __future__ import annotations

from edgeq.pipeline.phases import QUALITY, REPAIRS, TITLES, Phase
from edgeq.selection import Candidate, Selection
from edgeq.units import limit_key


def is_proven(candidate: Candidate) -> bool:
    """Return whether a candidate meets every limit beyond the sampling error of its evaluation.

    A limit that only a device can measure counts as met until a device has measured it.
    """
    return candidate.admissible and all(gate.shown or gate.holds is None for gate in candidate.gates)


def needless(phase: Phase, selection: Selection) -> str:
    """Return why a phase can be left out; empty where it may find a better model.

    A phase is worth its time if no candidate meets every limit beyond doubt, or if one that the blueprint
    prefers to the best admissible one misses a limit; and if the phase can improve what is missed. Without a
    limit on quality, plain quantization is not enough: nothing would say how bad it is.
    """
    if phase is Phase.CALIBRATION and not any(_judges_quality(each) for each in selection.candidates):
        return ""
    chosen = selection.chosen
    wanting = list(selection.candidates)
    if chosen is not None:
        before = selection.candidates.index(chosen)
        wanting = [each for each in selection.candidates[:before] if each.listed]
        wanting += [] if is_proven(chosen) else [chosen]
        if not wanting:
            return f"{chosen.variant.name} meets every limit"
    repaired = REPAIRS[phase]
    missed = list(dict.fromkeys(name for each in wanting for name in _missed(each)))
    if any(name in repaired for name in missed):
        return ""
    named = ", ".join(limit_key(name) for name in missed) or "no limit"
    return f"{named} missed, which {TITLES[phase].partition(':')[0]} does not improve"


def _missed(candidate: Candidate) -> list[str]:
    """Return the names of the limits that a candidate misses or does not meet beyond doubt."""
    return [gate.name for gate in candidate.gates if gate.holds is False or (gate.holds and not gate.shown)]


def _judges_quality(candidate: Candidate) -> bool:
    return any(gate.name in QUALITY for gate in candidate.gates)
