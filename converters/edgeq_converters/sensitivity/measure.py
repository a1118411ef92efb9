"""Measuring sensitivity: every operation quantized alone, all up to it, and what helps the worst ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgeq_converters.data.samples import Samples
from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.float_regions import Operation, closed, operations
from edgeq_converters.progress import Advance, Step
from edgeq_converters.quantization import quantize
from edgeq_converters.sensitivity import advice, screening, spreads, tensor_noise
from edgeq_converters.sensitivity.screening import Screen
from edgeq_converters.sensitivity.values import OpSensitivity, Sensitivity, Walk

SAMPLES = 256
LOOKED_INTO = 3
_ALONG_SAMPLES = 64
_OTHER_CALIBRATORS = ("percentile", "mse")
Figures = tuple[float | None, ...]


def measure(
    data: bytes,
    calibration: Samples,
    evaluation: Samples,
    *,
    subject: str,
    step: Step,
    calibrator: str = "minmax",
    samples: int = SAMPLES,
    walk: int = LOOKED_INTO,
) -> Sensitivity:
    """Return what quantizing each operation of a float .tflite costs at its logits.

    "Alone" quantizes an operation's inputs, weights and outputs and nothing else. That ranks; leaving a
    single one float while all others are int8 hardly moves the SQNR, because noise is not additive there.
    Source of the ranking: AIMET's automatic mixed precision, arXiv 2302.05397.

    Args:
        samples: at most as many of the evaluation samples are used, at even distances.
        walk: over how many of the worst operations the walk goes.

    Raises:
        ConverterError: EQ302..304 the model, EQ308 the quantizer refuses it as a whole, EQ309 NaN.
    """
    data = tflite_file.normalized(data, subject=subject)
    whole = tflite_file.parse(data, subject=subject)
    tflite_file.require_float(whole, subject=subject)
    used = screening.some(evaluation, samples)
    screen = screening.prepare(
        data,
        calibration,
        used,
        calibrator=calibrator,
        subject=subject,
        advance=step("calibrate", len(calibration) + len(used)),
    )
    all_int8 = screen.quantized(())  # what refuses the whole model says so here
    sweep = _sweep(screen, step("quantize operations one by one", 2 * len(screen.ops)))
    step("compare along the graph", 1)
    names = [op.name for op in screen.ops]
    few = screening.some(evaluation, _ALONG_SAMPLES)
    along = tensor_noise.along(screen.cut.data, all_int8, names, few, subject=subject)
    looked = _look_into(screen, sweep, walk, step)
    everywhere = operations(whole)
    at = [op.index for op in everywhere if op.index not in screen.cut.removed]
    found = {
        at[i]: _operation(screen, i, at[i], sweep=sweep, along=along[names[i]], looked=looked)
        for i in range(len(screen.ops))
    }
    ops = tuple(found.get(op.index) or _after(op) for op in everywhere)
    result = Sensitivity(
        measured_at=screen.cut.tensors,
        before=tuple(ops[i].op for i in screen.cut.removed),
        samples=len(used),
        calibration_samples=len(calibration),
        calibrator=calibrator,
        int8_db=sweep.int8_db,
        ops=ops,
        ranking=tuple(at[i] for i in sweep.ranking),
        walk=looked.walk,
        notes=(*calibration.notes, *_notes(ops, len(used), len(evaluation))),
    )
    return replace(result, notes=(*result.notes, *advice.of_model(result)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sweep:
    alone: Figures
    cumulative: Figures
    ranking: tuple[int, ...]
    known: tuple[bool, ...]

    @property
    def int8_db(self) -> float:
        return next((value for value in reversed(self.cumulative) if value is not None), math.inf)

    def noise(self) -> list[float]:
        """Return each operation's own noise as a share of the signal."""
        return [0.0 if value is None else 10 ** (-value / 10) for value in self.alone]


def _sweep(screen: Screen, advance: Advance) -> _Sweep:
    names = [op.name for op in screen.ops]
    library = quantize.known_ops()
    known = tuple(op.op in library for op in screen.ops)
    alone = screen.sqnr_db([[*names[:i], *names[i + 1 :]] for i in range(len(names))], advance=advance)
    cumulative = screen.sqnr_db([names[i + 1 :] for i in range(len(names))], advance=advance)
    measured = tuple(value if known[i] else None for i, value in enumerate(alone))
    ranking = sorted(
        (i for i, value in enumerate(measured) if value is not None and math.isfinite(value)),
        key=lambda i: (measured[i], i),
    )
    return _Sweep(alone=measured, cumulative=tuple(cumulative), ranking=tuple(ranking), known=known)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Looked:
    released: Mapping[int, float | None]
    others: Mapping[int, Mapping[str, float]]
    walk: tuple[Walk, ...]


def _look_into(screen: Screen, sweep: _Sweep, walk: int, step: Step) -> _Looked:
    """Return what the worst operations respond to: being float, and other ranges."""
    names = [op.name for op in screen.ops]
    worst = sweep.ranking[:LOOKED_INTO]
    prefixes = [closed(screen.ops, sweep.ranking[: k + 1]) for k in range(min(walk, len(sweep.ranking)))]
    prefixes = list(dict.fromkeys(prefixes))
    total = len(worst) * (1 + len(_OTHER_CALIBRATORS)) + len(prefixes)
    advance = step("look into the worst operations", max(total, 1))
    released = screen.sqnr_db([[names[i]] for i in worst], advance=advance)
    others: dict[int, dict[str, float]] = {i: {} for i in worst}
    for calibrator in _OTHER_CALIBRATORS:
        if calibrator == screen.calibrator:
            continue
        changed = screen.with_calibrator(calibrator)
        candidates = [[*names[:i], *names[i + 1 :]] for i in worst]
        for i, value in zip(worst, changed.sqnr_db(candidates, advance=advance), strict=True):
            if value is not None:
                others[i][calibrator] = value
    floats = [tuple(names[i] for i in sorted(prefix)) for prefix in prefixes]
    walked = screen.sqnr_db(floats, advance=advance)
    return _Looked(
        released=dict(zip(worst, released, strict=True)),
        others=others,
        walk=tuple(
            Walk(float_ops=kept, sqnr_db=value)
            for kept, value in zip(floats, walked, strict=True)
            if value is not None
        ),
    )


def _operation(
    screen: Screen, i: int, at: int, *, sweep: _Sweep, along: tensor_noise.Along, looked: _Looked
) -> OpSensitivity:
    op, noise = screen.ops[i], sweep.noise()
    total, own = sum(noise), noise[i]
    rest = total - own
    cost = None
    if sweep.alone[i] is not None and total > 0:
        cost = 10 * math.log10(total / rest) if rest > 0 else math.inf
    histogram = screen.histograms.get(op.name)
    made = OpSensitivity(
        index=at,
        op=op.op,
        name=op.name,
        alone_db=sweep.alone[i],
        cumulative_db=sweep.cumulative[i],
        local_db=along.sqnr_db,
        share=None if sweep.alone[i] is None or not total else own / total,
        cost_db=cost,
        other_ranges_db=looked.others.get(i, {}),
        released_db=looked.released.get(i),
        weights=spreads.of_weights(screen.model, i),
        activation=spreads.of_activation(op.name, histogram, along.channel_ratio) if histogram else None,
        reason=_reason(sweep, i),
        advice=(),
    )
    return replace(
        made, advice=advice.of_operation(made, calibrator=screen.calibrator, int8_db=sweep.int8_db)
    )


def _reason(sweep: _Sweep, i: int) -> str:
    if not sweep.known[i]:
        return "the quantizer does not know this operation: it stays float"
    if sweep.alone[i] is None:
        return "the quantizer or the runtime refuses the model with only this operation quantized"
    return ""


def _after(op: Operation) -> OpSensitivity:
    return OpSensitivity(
        index=op.index,
        op=op.op,
        name=op.name,
        alone_db=None,
        cumulative_db=None,
        local_db=None,
        share=None,
        cost_db=None,
        other_ranges_db={},
        released_db=None,
        weights=None,
        activation=None,
        reason="after the logits: an integer output of it has a fixed scale whatever is chosen",
        advice=(),
    )


def _notes(ops: Sequence[OpSensitivity], used: int, given: int) -> tuple[str, ...]:
    notes = []
    if used < given:
        notes.append(f"{used} of {given} evaluation samples were used, at even distances (--samples)")
    unknown = sorted({op.op for op in ops if "does not know" in op.reason})
    if unknown:
        notes.append(f"{', '.join(unknown)}: the quantizer does not know these; they stay float")
    return tuple(notes)
