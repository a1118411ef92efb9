"""Screening: the SQNR at the logits of many int8 models that differ in which operations stay float."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters import metrics
from edgeq_converters.calibration import observe
from edgeq_converters.calibration.histogram import Histogram
from edgeq_converters.data.samples import Samples
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import float_regions, inference, logits, tflite_file
from edgeq_converters.progress import Advance
from edgeq_converters.quantization.backends import litert
from edgeq_converters.recipe import Recipe
from edgeq_converters.values import Scheme

Real = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Screen:
    """A float model up to its logits, with all that candidates are made and judged with.

    Attributes:
        cut: the model whose outputs are compared.
        ops: the operations of the cut model.
        histograms: of every activation, from the calibration samples.
        ranges: what the calibrator made of them.
        samples: the samples on which candidates are compared with the float model.
        reference: the float model's logits on them.
        calibrator: which calibrator.
    """

    subject: str
    cut: logits.Cut
    ops: tuple[float_regions.Operation, ...]
    histograms: Mapping[str, Histogram]
    ranges: Mapping[str, Any]
    samples: Samples
    reference: tuple[Real, ...]
    calibrator: str
    model: Any = field(repr=False)

    def with_calibrator(self, calibrator: str) -> Screen:
        """Return the same screen with other ranges from the same histograms."""
        from dataclasses import replace

        found = observe.ranges(self.cut.data, self.histograms, calibrator=calibrator, subject=self.subject)
        return replace(self, ranges=found, calibrator=calibrator)

    def quantized(self, float_ops: Collection[str]) -> bytes:
        """Return the model with float inputs and outputs and all operations int8 but the named.

        Raises:
            ConverterError: EQ308 when the quantizer refuses it.
        """
        # Straight to the backend: what it leaves in float stays so here, and no TensorFlow is asked for it.
        recipe = Recipe(scheme=Scheme.INT8_MIXED, io="float32", float_ops=tuple(float_ops))
        return litert.quantize(self.cut.data, recipe=recipe, ranges=self.ranges, subject=self.subject)

    def sqnr_db(self, candidates: Sequence[Collection[str]], *, advance: Advance) -> list[float | None]:
        """Return each candidate's SQNR at the logits; None where the quantizer or the runtime refused it.

        Args:
            candidates: the names of the operations that stay float.
        """
        found: list[float | None] = []
        workers = max(1, os.cpu_count() or 1)
        with ThreadPoolExecutor(workers) as pool:
            # Quantizing is Python and runs here, one after the other; running the models leaves the
            # interpreter lock and fills the cores. A window bounds how many models are held.
            for window in _windows(candidates, workers):
                running = [pool.submit(self._judge, self._made(float_ops)) for float_ops in window]
                found.extend(future.result() for future in running)
                advance(len(window))
        return found

    def _made(self, float_ops: Collection[str]) -> bytes | None:
        try:
            return self.quantized(float_ops)
        except ConverterError as error:
            if error.code != "EQ308":
                raise
            return None

    def _judge(self, data: bytes | None) -> float | None:
        if data is None:
            return None
        try:
            given = _outputs(data, self.samples, subject=self.subject)
        except ConverterError as error:
            if error.code != "EQ303":
                raise
            return None
        return metrics.sqnr_db(given, self.reference)


def prepare(
    data: bytes,
    calibration_samples: Samples,
    samples: Samples,
    *,
    calibrator: str,
    subject: str,
    advance: Advance,
) -> Screen:
    """Return the screen of a float model: calibrated once, run once in float.

    Args:
        data: a float .tflite with unique tensor names.

    Raises:
        ConverterError: EQ309 the float model gives NaN or infinity.
    """
    cut = logits.cut(data, subject=subject)
    model = tflite_file.parse(cut.data, subject=subject)
    histograms = observe.observe(cut.data, calibration_samples, subject=subject, advance=advance)
    reference = inference.outputs(cut.data, samples, subject=subject, advance=advance)
    for name, array in zip(cut.tensors, reference, strict=True):
        if not np.isfinite(array).all():
            raise ConverterError(
                "EQ309",
                subject,
                f"the float model gives NaN or infinite values in tensor {name!r} on the evaluation data",
                hint="check the model on the evaluation data in float first",
            )
    return Screen(
        subject=subject,
        cut=cut,
        ops=float_regions.operations(model),
        histograms=histograms,
        ranges=observe.ranges(cut.data, histograms, calibrator=calibrator, subject=subject),
        samples=samples,
        reference=tuple(array.astype(np.float64) for array in reference),
        calibrator=calibrator,
        model=model,
    )


def some(samples: Samples, count: int) -> Samples:
    """Return `count` samples at even distances, all where there are no more."""
    if len(samples) <= count:
        return samples
    chosen = np.unique(np.linspace(0, len(samples) - 1, count).round().astype(int))
    return Samples(
        inputs=samples.inputs, arrays=tuple(array[chosen] for array in samples.arrays), notes=samples.notes
    )


def _windows(candidates: Sequence[Collection[str]], size: int) -> Iterator[Sequence[Collection[str]]]:
    for start in range(0, len(candidates), size):
        yield candidates[start : start + size]


def _outputs(data: bytes, samples: Samples, *, subject: str) -> list[npt.NDArray[Any]]:
    """Return a candidate's outputs; its inputs are the float model's, so that nothing need be parsed."""
    interpreter = inference.open_interpreter(data, subject=subject)
    sources = [detail["index"] for detail in interpreter.get_input_details()]
    targets = [detail["index"] for detail in interpreter.get_output_details()]
    gathered: list[list[npt.NDArray[Any]]] = [[] for _ in targets]
    for rows, count in inference.batches(samples, samples.inputs):
        inference.invoke(interpreter, sources, rows, subject=subject)
        for into, index in zip(gathered, targets, strict=True):
            into.append(np.array(interpreter.get_tensor(index))[:count])
    return [np.concatenate(parts) for parts in gathered]
