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
from edgeq_converters.progress import Advance, ignore
from edgeq_converters.quantization.backends import litert
from edgeq_converters.recipe import Recipe
from edgeq_converters.values import Scheme

Real = npt.NDArray[np.float64]


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
        calibrator: the name of the calibrator.
    """

    cut: logits.Cut
    ops: tuple[float_regions.Operation, ...]
    histograms: Mapping[str, Histogram]
    ranges: Mapping[str, TensorRange]
    samples: Samples
    reference: tuple[Real, ...]
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

    def sqnr_db(self, candidates: Sequence[Collection[str]], *, advance: Advance) -> list[float | None]:
        """Return each candidate's SQNR at the logits; None if the quantizer or the runtime refuses it.

        Args:
            candidates: names of the operations that stay float.
            advance: called with the number of candidates done.
        """
        results: list[float | None] = []
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

    def _score(self, model: Model | None) -> float | None:
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
        return metrics.sqnr_db(outputs, self.reference)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CrossScreen:
    """The screens of all folds, whose noise on the held-out samples is added up.

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

    def sqnr_db(self, candidates: Sequence[Collection[str]], *, advance: Advance) -> list[float | None]:
        """Return each candidate's SQNR over the held-out samples of all folds, as `Screen.sqnr_db` does."""
        if len(self.screens) == 1:
            return self.screens[0].sqnr_db(candidates, advance=advance)
        columns = [self.screens[0].sqnr_db(candidates, advance=advance)]
        columns += [screen.sqnr_db(candidates, advance=ignore) for screen in self.screens[1:]]
        signals = [sum(float(np.square(array).sum()) for array in each.reference) for each in self.screens]
        results: list[float | None] = []
        for row in zip(*columns, strict=True):
            measured = [value for value in row if value is not None]
            if len(measured) < len(row):
                results.append(None)
                continue
            noise = sum(signal * 10 ** (-value / 10) for signal, value in zip(signals, measured, strict=True))
            results.append(metrics.decibels(sum(signals), noise))
        return results


def prepare_folds(model: Model, parts: Partition, *, calibrator: str, advance: Advance) -> CrossScreen:
    """Return the screens of a partition; arguments and errors as in `prepare`."""
    return CrossScreen(
        screens=tuple(
            prepare(model, fold.fit, fold.held_out, calibrator=calibrator, advance=advance)
            for fold in parts.folds
        )
    )


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
