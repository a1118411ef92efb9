"""A trained state as files: the .keras with weights on their grids, its recipe and the integer model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.data.samples import Samples, to_real
from edgeq_converters.graph import inference, tflite_file
from edgeq_converters.recipe import Recipe, Switch
from edgeq_converters.sources.load import load_source
from edgeq_converters.training.common import keras_file, keras_graph
from edgeq_converters.training.common.training_data import LabelledData
from edgeq_converters.training.qat import activation_points
from edgeq_converters.training.qat.activation_points import Points
from edgeq_converters.training.qat.fake_quant import LearnedRange
from edgeq_converters.training.qat.initialize import Start
from edgeq_converters.training.qat.quantized_forward import fixed_activation

Convert = Callable[[Path, Path, Recipe, Path, Path], Any]
"""(source, output, recipe, calibration data, an empty folder)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model and the integer file that its recipe makes of it."""

    model: Path
    recipe: Recipe
    file: Path


class Maker:
    """Makes candidates in a folder, all calibrated on the same samples."""

    def __init__(self, convert: Convert, data: LabelledData, workdir: Path, subject: str) -> None:
        self._convert, self._data, self._workdir, self._subject = convert, data, workdir, subject
        self._samples = workdir / "calibration.npz"
        arrays = {f"input_{i}": array for i, array in enumerate(data.arrays)}
        np.savez(self._samples, **arrays)  # type: ignore[arg-type] # its stub takes allow_pickle there

    def convert(self, name: str, model: Path, recipe: Recipe) -> Candidate:
        """Return the integer file of a model under a recipe."""
        folder = self._workdir / f"{name}-files"
        folder.mkdir()
        file = self._workdir / f"{name}.tflite"
        keras_graph.forget_names()
        self._convert(model, file, recipe, self._samples, folder)
        return Candidate(model=model, recipe=recipe, file=file)

    def write(self, name: str, began: Start, plain: Recipe) -> Candidate:
        """Put the trained weights on their grids for good and return what becomes of them."""
        began.forward.snap()
        model = self._workdir / f"{name}.keras"
        keras_file.write(began.model, model)
        hub = hub_of(began.model, self._workdir / f"{name}-hub.keras", self._subject)
        written = activation_points.find(began.model, hub, self._data, subject=self._subject)
        recipe = replace(
            plain,
            ranges=_named(began.model, began.found, written, began.ranges),
            calibrator="minmax",  # of what has no learned range: outputs that the kernels fix
            bias_correction=Switch.OFF,  # the training has seen the errors that these would correct
            equalization=Switch.OFF,
        )
        return self.convert(name, model, recipe)

    def outputs(self, candidate: Candidate, data: LabelledData) -> list[npt.NDArray[Any]]:
        """Return the integer file's outputs as real values, samples first."""
        content = candidate.file.read_bytes()
        inputs, outs = tflite_file.inputs_and_outputs(tflite_file.parse(content, subject=self._subject))
        samples = Samples(inputs=inputs, arrays=data.arrays)
        raw = inference.outputs(content, samples, subject=self._subject, advance=lambda _count: None)
        return [to_real(array, tensor) for array, tensor in zip(raw, outs, strict=True)]


def hub_of(model: Any, path: Path, subject: str) -> bytes:
    """Return the float .tflite of a Keras model.

    Args:
        path: where to save the model for it; its folder takes the converter's files.
    """
    model.save(path)
    folder = path.with_suffix("")
    folder.mkdir()
    keras_graph.forget_names()
    loaded = load_source(path, folder, announce=lambda _what: None)
    return tflite_file.normalized(loaded.data, subject=subject)


def _named(
    model: Any, trained: Points, written: Points, ranges: dict[str, LearnedRange]
) -> tuple[tuple[str, float, float], ...]:
    """Return (tensor, low, high) of every learned range; outputs of softmax and its like have none.

    The converter names a tensor after what it fused into it, and a bias that is zero is not fused: the names
    are those of the written model, the ranges those of the same places in the trained one.
    """
    fixed = {
        id(symbol) for call in keras_graph.calls(model) if fixed_activation(call) for symbol in call.outputs
    }
    learned: dict[str, tuple[float, float]] = {}
    for symbol, key in written.key_of.items():
        if symbol not in fixed and symbol in trained.key_of:
            low, high = (float(np.asarray(end)) for end in ranges[trained.key_of[symbol]].ends())
            for name in written.names[key]:
                learned.setdefault(name, (low, high))
    return tuple((name, low, high) for name, (low, high) in sorted(learned.items()))
