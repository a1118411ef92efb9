"""Screen choices of float operations: quantize each choice and measure its SQNR at the logits."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters import metrics
from edgeq_converters.calibration.histogram import Histogram
from edgeq_converters.calibration.observe import observe
from edgeq_converters.calibration.ranges import TensorRange, calibrated_ranges
from edgeq_converters.data.partition import Partition
from edgeq_converters.data.samples import Samples
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import float_regions, logits, state
from edgeq_converters.graph.interpreter import Interpreter, run_batches, run_samples, samples_first
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.state import State
from edgeq_converters.metrics import OutputPowers
from edgeq_converters.progress import Advance, ignore
from edgeq_converters.quantization.backends import litert
from edgeq_converters.recipe import Recipe
from edgeq_converters.values import OutputSqnr, Scheme

Real = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A candidate beside the float model, at the logits.

    Attributes:
        powers: of the signal and the noise in each output and its slices.
        outputs: their ratios.
    """

    powers: tuple[OutputPowers, ...]
    outputs: tuple[OutputSqnr, ...]

    @property
    def worst(self) -> OutputSqnr:
        """The output with the lowest ratio, its slices included; the first of equal ones."""
        return min(self.outputs, key=lambda output: output.worst_db)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Screen:
    """A float model cut at its logits, with all that is needed to quantize and compare candidates.

    Attributes:
        cut: the model whose outputs are compared.
        ops: the operations of the cut model.
        histograms: of every activation, from the calibration samples.
        ranges: the calibrator's ranges.
        samples: the samples on which candidates are compared with the float model.
        reference: the float model's logits on them.
        axes: of the slices of each output (`metrics.slices_axis`).
        calibrator: the name of the calibrator.
    """

    cut: logits.Cut
    ops: tuple[float_regions.Operation, ...]
    histograms: Mapping[str, Histogram]
    ranges: Mapping[str, TensorRange]
    samples: Samples
    reference: tuple[Real, ...]
    axes: tuple[int | None, ...]
    calibrator: str

    def with_calibrator(self, calibrator: str) -> Screen:
        """Return the same screen with another calibrator's ranges from the same histograms."""
        ranges = calibrated_ranges(self.cut.model, self.histograms, calibrator=calibrator)
        return replace(self, ranges=ranges, calibrator=calibrator)

    def quantize(self, float_ops: Collection[str]) -> Model:
        """Return the model with float inputs and outputs, and all operations int8 except those named.

        Raises:
            ConverterError: EQ308 the quantizer refuses it.
        """
        # Call the backend directly: an operation that it does not know stays float, without trying
        # TensorFlow.
        recipe = Recipe(scheme=Scheme.INT8_MIXED, io="float32", float_ops=tuple(float_ops))
        return litert.quantize(self.cut.model, recipe=recipe, ranges=self.ranges)

    def compare(self, candidates: Sequence[Collection[str]], *, advance: Advance) -> list[Compared | None]:
        """Return each candidate beside the float model; None if the quantizer or the runtime refuses it.

        Args:
            candidates: names of the operations that stay float.
            advance: called with the number of candidates done.
        """
        results: list[Compared | None] = []
        workers = max(1, os.cpu_count() or 1)
        with ThreadPoolExecutor(workers) as pool:
            # Quantizing is Python code and runs here, one candidate after the other. Running the models
            # releases the interpreter lock and fills the cores. A window bounds the models in memory.
            for window in _windows(candidates, workers):
                running = [pool.submit(self._score, self._quantize_or_none(names)) for names in window]
                results.extend(future.result() for future in running)
                advance(len(window))
        return results

    def _quantize_or_none(self, float_ops: Collection[str]) -> Model | None:
        try:
            return self.quantize(float_ops)
        except ConverterError as error:
            if error.code != "EQ308":
                raise
            return None

    def _score(self, model: Model | None) -> Compared | None:
        if model is None:
            return None
        try:
            # A candidate keeps state if the float model does; a graph number of one is not valid in the
            # other.
            own = state.read(self.cut.model)
            outputs = _outputs(model, self.samples, None if own.kept else own)
        except ConverterError as error:
            if error.code != "EQ303":
                raise
            return None
        pairs = list(zip(outputs, self.reference, self.axes, strict=True))
        return Compared(
            powers=tuple(
                metrics.output_powers(output, reference, axis=axis) for output, reference, axis in pairs
            ),
            outputs=tuple(
                metrics.output_sqnr(name, output, reference, axis=axis)
                for name, (output, reference, axis) in zip(self.cut.tensors, pairs, strict=True)
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CrossScreen:
    """The screens of all folds, whose powers on the held-out samples are added up.

    Attributes:
        screens: of the same model, each with the ranges of its fold's samples to fit on.
    """

    screens: tuple[Screen, ...]

    @property
    def cut(self) -> logits.Cut:
        """The model whose outputs are compared."""
        return self.screens[0].cut

    @property
    def ops(self) -> tuple[float_regions.Operation, ...]:
        """The operations of the cut model."""
        return self.screens[0].ops

    def quantize(self, float_ops: Collection[str]) -> Model:
        """Return the model with the ranges of the first fold, as `Screen.quantize` does."""
        return self.screens[0].quantize(float_ops)

    def worst_db(self, candidates: Sequence[Collection[str]], *, advance: Advance) -> list[float | None]:
        """Return each candidate's SQNR in the worst slice of its worst output, over all held-out samples.

        None stands for a candidate that the quantizer or the runtime refuses. One number over all values
        would hide a dead slice of small values beside large ones.
        """
        columns = [self.screens[0].compare(candidates, advance=advance)]
        columns += [screen.compare(candidates, advance=ignore) for screen in self.screens[1:]]
        return [_worst_db(row) for row in zip(*columns, strict=True)]


def _worst_db(folds: Sequence[Compared | None]) -> float | None:
    """Return the SQNR of one candidate in the worst slice, with the powers of all folds added up."""
    measured = [each.powers for each in folds if each is not None]
    if len(measured) < len(folds):
        return None
    total = measured[0]
    for powers in measured[1:]:
        total = tuple(one.added(other) for one, other in zip(total, powers, strict=True))
    return min(each.worst_db for each in total)


def prepare_folds(model: Model, parts: Partition, *, calibrator: str, advance: Advance) -> CrossScreen:
    """Return the screens of a partition; arguments and errors as in `prepare`."""
    first, *others = (
        prepare(model, fold.fit, fold.held_out, calibrator=calibrator, advance=advance)
        for fold in parts.folds
    )
    return CrossScreen(screens=(first, *(replace(each, axes=first.axes) for each in others)))


def prepare(
    model: Model, calibration: Samples, evaluation: Samples, *, calibrator: str, advance: Advance
) -> Screen:
    """Return the screen of a float model, which is calibrated once and run once in float.

    Args:
        model: a normalized float model.
        calibration: samples to calibrate on.
        evaluation: samples to compare candidates on.

    Raises:
        ConverterError: EQ309 the float model gives NaN or infinity.
    """
    cut = logits.cut(model)
    histograms = observe(cut.model, calibration, advance=advance)
    reference = run_samples(cut.model, evaluation, advance=advance)
    for name, array in zip(cut.tensors, reference, strict=True):
        if not np.isfinite(array).all():
            raise ConverterError(
                "EQ309",
                model.subject,
                f"the float model gives NaN or infinite values in tensor {name!r} on the evaluation data",
                hint="check the model on the evaluation data in float first",
            )
    return Screen(
        cut=cut,
        ops=float_regions.operations(cut.model),
        histograms=histograms,
        ranges=calibrated_ranges(cut.model, histograms, calibrator=calibrator),
        samples=evaluation,
        reference=tuple(array.astype(np.float64) for array in reference),
        axes=tuple(metrics.slices_axis(array) for array in reference),
        calibrator=calibrator,
    )


def _windows(candidates: Sequence[Collection[str]], size: int) -> Iterator[Sequence[Collection[str]]]:
    for start in range(0, len(candidates), size):
        yield candidates[start : start + size]


def _outputs(model: Model, samples: Samples, known: State | None) -> list[npt.NDArray[Any]]:
    """Return a candidate's outputs; with a known state it is not parsed: its inputs are the float model's."""
    interpreter = Interpreter(model, state=known)
    gathered: list[list[npt.NDArray[Any]]] = [[] for _ in interpreter.outputs]
    for count in run_batches(interpreter, samples, samples.inputs):
        for into, values in zip(gathered, interpreter.results(), strict=True):
            into.append(samples_first(values, size=samples.batch, count=count))
    return [np.concatenate(parts) for parts in gathered]
