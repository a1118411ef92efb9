"""Measure sensitivity: quantize each operation alone and all up to it; try remedies for the worst ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgeq_converters.data.samples import Samples, subset
from edgeq_converters.graph import validate
from edgeq_converters.graph.float_regions import Operation, fill_gaps, operations
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.rewrite.rules import prepared
from edgeq_converters.progress import Advance, Step
from edgeq_converters.quantization.quantize import known_ops
from edgeq_converters.sensitivity import advice, screening, spreads, tensor_noise
from edgeq_converters.sensitivity.screening import Screen
from edgeq_converters.sensitivity.tensor_noise import TensorNoise
from edgeq_converters.sensitivity.usefulness import find_loss
from edgeq_converters.sensitivity.values import FloatStep, OpSensitivity, Sensitivity
from edgeq_converters.values import notes_of, warnings_of

SAMPLES = 256
WORST = 3
_TENSOR_SAMPLES = 64
_OTHER_CALIBRATORS = ("percentile", "mse")
Figures = tuple[float | None, ...]


def measure(
    model: Model,
    calibration: Samples,
    evaluation: Samples,
    *,
    step: Step,
    calibrator: str = "minmax",
    samples: int = SAMPLES,
    float_steps: int = WORST,
) -> Sensitivity:
    """Return how much noise at the logits the quantization of each operation of a float model causes.

    "Alone" quantizes the inputs, weights and outputs of one operation and nothing else; that ranks the
    operations. Leaving one operation float while all others are int8 hardly changes the SQNR, because noise
    is not additive there. Source of the ranking: AIMET's automatic mixed precision, arXiv 2302.05397.

    Args:
        calibration: the representative dataset.
        evaluation: samples on which models are compared.
        samples: at most this many of the evaluation samples are used, evenly spaced.
        float_steps: how many of the worst operations to leave float together, one more in each step.

    Raises:
        ConverterError: EQ302..304 the model, EQ308 the quantizer refuses the whole model, EQ309 NaN.
    """
    model = prepared(model)
    validate.require_float(model)
    used = subset(evaluation, samples)
    advance = step("calibrate", len(calibration) + len(used))
    screen = screening.prepare(model, calibration, used, calibrator=calibrator, advance=advance)
    all_int8 = screen.quantize(())  # fails here if the quantizer refuses the whole model
    sweep = _sweep(screen, step("quantize operations one by one", 2 * len(screen.ops)))
    step("compare along the graph", 1)
    names = [op.name for op in screen.ops]
    few = subset(evaluation, _TENSOR_SAMPLES)
    tensors = tensor_noise.measure_tensors(screen.cut.model, all_int8, names, few)
    loss = find_loss(screen.cut.model, all_int8, few)
    useless = () if loss is None else (f"all operations in int8, uncorrected: the result is useless: {loss}",)
    remedies = _try_remedies(screen, sweep, float_steps, step)
    whole = operations(model)
    positions = [op.index for op in whole if op.index not in screen.cut.removed]
    measured = {
        position: _operation(screen, i, position, sweep, tensors[names[i]], remedies)
        for i, position in enumerate(positions)
    }
    ops = tuple(measured.get(op.index) or _after_logits(op) for op in whole)
    result = Sensitivity(
        measured_at=screen.cut.tensors,
        before=tuple(ops[i].op for i in screen.cut.removed),
        samples=len(used),
        calibration_samples=len(calibration),
        calibrator=calibrator,
        int8_db=sweep.int8_db,
        ops=ops,
        ranking=tuple(positions[i] for i in sweep.ranking),
        float_steps=remedies.float_steps,
        notes=(*notes_of(calibration.notes), *_notes(ops, len(used), len(evaluation))),
        warnings=(*useless, *warnings_of(calibration.notes)),
    )
    return replace(result, notes=(*result.notes, *advice.advise_model(result)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sweep:
    """SQNR with each operation quantized alone, and with all up to it."""

    alone: Figures
    cumulative: Figures
    ranking: tuple[int, ...]
    known: tuple[bool, ...]

    @property
    def int8_db(self) -> float:
        return next((value for value in reversed(self.cumulative) if value is not None), math.inf)

    def noise(self) -> list[float]:
        """Return the noise of each operation alone, as a share of the signal power."""
        return [0.0 if value is None else 10 ** (-value / 10) for value in self.alone]


def _sweep(screen: Screen, advance: Advance) -> _Sweep:
    names = [op.name for op in screen.ops]
    library = known_ops()
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
class _Remedies:
    """SQNR of the worst operations left float, with other calibrators, and after each float step."""

    released: Mapping[int, float | None]
    others: Mapping[int, Mapping[str, float]]
    float_steps: tuple[FloatStep, ...]


def _try_remedies(screen: Screen, sweep: _Sweep, float_steps: int, step: Step) -> _Remedies:
    names = [op.name for op in screen.ops]
    worst = sweep.ranking[:WORST]
    counts = range(1, min(float_steps, len(sweep.ranking)) + 1)
    prefixes = list(dict.fromkeys(fill_gaps(screen.ops, sweep.ranking[:count]) for count in counts))
    total = len(worst) * (1 + len(_OTHER_CALIBRATORS)) + len(prefixes)
    advance = step("try remedies for the worst operations", max(total, 1))
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
    steps_db = screen.sqnr_db(floats, advance=advance)
    return _Remedies(
        released=dict(zip(worst, released, strict=True)),
        others=others,
        float_steps=tuple(
            FloatStep(float_ops=float_ops, sqnr_db=value)
            for float_ops, value in zip(floats, steps_db, strict=True)
            if value is not None
        ),
    )


def _operation(
    screen: Screen, i: int, position: int, sweep: _Sweep, tensor: TensorNoise, remedies: _Remedies
) -> OpSensitivity:
    op, noise = screen.ops[i], sweep.noise()
    total, own = sum(noise), noise[i]
    rest = total - own
    cost = None
    if sweep.alone[i] is not None and total > 0:
        cost = 10 * math.log10(total / rest) if rest > 0 else math.inf
    histogram = screen.histograms.get(op.name)
    activation = None
    if histogram:
        activation = spreads.activation_spread(op.name, histogram, tensor.channel_ratio)
    result = OpSensitivity(
        index=position,
        op=op.op,
        name=op.name,
        alone_db=sweep.alone[i],
        cumulative_db=sweep.cumulative[i],
        local_db=tensor.sqnr_db,
        share=None if sweep.alone[i] is None or not total else own / total,
        cost_db=cost,
        other_ranges_db=remedies.others.get(i, {}),
        released_db=remedies.released.get(i),
        weights=spreads.weight_spread(screen.cut.model, i),
        activation=activation,
        reason=_reason(sweep, i),
        advice=(),
    )
    sentences = advice.advise_operation(result, calibrator=screen.calibrator, int8_db=sweep.int8_db)
    return replace(result, advice=sentences)


def _reason(sweep: _Sweep, i: int) -> str:
    if not sweep.known[i]:
        return "the quantizer does not know this operation: it stays float"
    if sweep.alone[i] is None:
        return "the quantizer or the runtime refuses the model with only this operation quantized"
    return ""


def _after_logits(op: Operation) -> OpSensitivity:
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
        reason="after the logits: its integer output has a fixed scale that no choice affects",
        advice=(),
    )


def _notes(ops: Sequence[OpSensitivity], used: int, available: int) -> tuple[str, ...]:
    notes = []
    if used < available:
        notes.append(f"{used} of {available} evaluation samples were used, evenly spaced (--samples)")
    unknown = sorted({op.op for op in ops if "does not know" in op.reason})
    if unknown:
        notes.append(f"{', '.join(unknown)}: the quantizer does not know these operations; they stay float")
    return tuple(notes)
