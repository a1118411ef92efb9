"""Measure sensitivity: quantize each operation alone and all up to it; try remedies for the worst ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgeq_converters.data.samples import Samples, subset
from edgeq_converters.graph import postprocessing, validate
from edgeq_converters.graph.float_regions import Operation, fill_gaps, operations
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.rewrite.rules import prepared
from edgeq_converters.progress import Advance, Step
from edgeq_converters.quantization.quantize import known_ops
from edgeq_converters.sensitivity import advice, screening, spreads, tensor_noise
from edgeq_converters.sensitivity.screening import Compared, Screen
from edgeq_converters.sensitivity.tensor_noise import TensorNoise
from edgeq_converters.sensitivity.usefulness import find_loss
from edgeq_converters.sensitivity.values import FloatStep, OpSensitivity, Sensitivity
from edgeq_converters.values import OutputSqnr, notes_of, warnings_of

SAMPLES = 256
WORST = 3
_TENSOR_SAMPLES = 64
_OTHER_CALIBRATORS = ("percentile", "mse")


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
    operations, each by the worst slice of its worst output. Leaving one operation float while all others
    are int8 hardly changes the SQNR, because noise is not additive there. Source of the ranking: AIMET's
    automatic mixed precision, arXiv 2302.05397.

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
    # Of detections, what their post-processing reads is compared: it lists boxes in an order of its own.
    head = postprocessing.detach(model).model
    screen = screening.prepare(head, calibration, used, calibrator=calibrator, advance=advance)
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
    place_of = {op.name: op.index for op in whole}
    positions = [place_of[op.name] for op in screen.ops]
    measured = {
        position: _operation(screen, i, position, sweep, tensors[names[i]], remedies)
        for i, position in enumerate(positions)
    }
    after_head = {op.name for op in whole} - {op.name for op in operations(head)}
    ops = tuple(measured.get(op.index) or _not_measured(op, listed=op.name in after_head) for op in whole)
    result = Sensitivity(
        measured_at=screen.cut.tensors,
        before=tuple(op.op for op in ops if op.index not in measured),
        samples=len(used),
        calibration_samples=len(calibration),
        calibrator=calibrator,
        int8_db=sweep.int8_db,
        int8_outputs=sweep.int8_outputs,
        ops=ops,
        ranking=tuple(positions[i] for i in sweep.ranking),
        float_steps=remedies.float_steps,
        notes=(*notes_of(calibration.notes), *_notes(ops, len(used), len(evaluation))),
        warnings=(*useless, *warnings_of(calibration.notes)),
    )
    return replace(result, notes=(*result.notes, *advice.advise_model(result)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sweep:
    """The logits with each operation quantized alone, and with all up to it."""

    alone: tuple[Compared | None, ...]
    cumulative: tuple[Compared | None, ...]
    ranking: tuple[int, ...]
    known: tuple[bool, ...]

    @property
    def int8_outputs(self) -> tuple[OutputSqnr, ...]:
        return next((each.outputs for each in reversed(self.cumulative) if each is not None), ())

    @property
    def int8_db(self) -> float:
        return min((each.worst_db for each in self.int8_outputs), default=math.inf)

    def noise(self) -> list[float]:
        """Return the noise of each operation alone, as a share of the signal power in the worst slice."""
        values = _worst_db(self.alone)
        return [0.0 if value is None else 10 ** (-value / 10) for value in values]


def _worst_db(compared: Sequence[Compared | None]) -> list[float | None]:
    return [None if each is None else each.worst.worst_db for each in compared]


def _sweep(screen: Screen, advance: Advance) -> _Sweep:
    names = [op.name for op in screen.ops]
    library = known_ops()
    known = tuple(op.op in library for op in screen.ops)
    alone = screen.compare([[*names[:i], *names[i + 1 :]] for i in range(len(names))], advance=advance)
    cumulative = screen.compare([names[i + 1 :] for i in range(len(names))], advance=advance)
    measured = tuple(each if known[i] else None for i, each in enumerate(alone))
    values = _worst_db(measured)
    ranking = sorted(
        (i for i, value in enumerate(values) if value is not None and math.isfinite(value)),
        key=lambda i: (values[i], i),
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
    released = _worst_db(screen.compare([[names[i]] for i in worst], advance=advance))
    others: dict[int, dict[str, float]] = {i: {} for i in worst}
    for calibrator in _OTHER_CALIBRATORS:
        if calibrator == screen.calibrator:
            continue
        changed = screen.with_calibrator(calibrator)
        candidates = [[*names[:i], *names[i + 1 :]] for i in worst]
        tried = _worst_db(changed.compare(candidates, advance=advance))
        for i, value in zip(worst, tried, strict=True):
            if value is not None:
                others[i][calibrator] = value
    floats = [tuple(names[i] for i in sorted(prefix)) for prefix in prefixes]
    steps_db = _worst_db(screen.compare(floats, advance=advance))
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
    alone, cumulative = sweep.alone[i], sweep.cumulative[i]
    total, own = sum(noise), noise[i]
    rest = total - own
    cost = None
    if alone is not None and total > 0:
        cost = 10 * math.log10(total / rest) if rest > 0 else math.inf
    histogram = screen.histograms.get(op.name)
    activation = None
    if histogram:
        activation = spreads.activation_spread(op.name, histogram, tensor.channel_ratio)
    result = OpSensitivity(
        index=position,
        op=op.op,
        name=op.name,
        alone_db=None if alone is None else alone.worst.worst_db,
        alone_at=None if alone is None else alone.worst,
        cumulative_db=None if cumulative is None else cumulative.worst.worst_db,
        cumulative_at=None if cumulative is None else cumulative.worst,
        local_db=tensor.sqnr_db,
        share=None if alone is None or not total else own / total,
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


def _not_measured(op: Operation, *, listed: bool) -> OpSensitivity:
    """Return an operation after what was compared; `listed` for the post-processing of detections."""
    after = "after the logits: its integer output has a fixed scale that no choice affects"
    return OpSensitivity(
        index=op.index,
        op=op.op,
        name=op.name,
        alone_db=None,
        alone_at=None,
        cumulative_db=None,
        cumulative_at=None,
        local_db=None,
        share=None,
        cost_db=None,
        other_ranges_db={},
        released_db=None,
        weights=None,
        activation=None,
        reason=f"{postprocessing.REASON}: stays float" if listed else after,
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
