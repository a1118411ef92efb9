"""Export a trained state: the .keras with weights on their grids, its recipe, and the integer file."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.data.samples import Samples, to_real
from edgeq_converters.graph.interpreter import run_samples
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.rewrite.rules import prepared
from edgeq_converters.progress import ignore
from edgeq_converters.recipe import Recipe, Switch, Tail
from edgeq_converters.sources.load import load_source
from edgeq_converters.training.common import keras_graph
from edgeq_converters.training.common.training_data import LabelledData
from edgeq_converters.training.qat import activation_points
from edgeq_converters.training.qat.activation_points import ActivationPoints
from edgeq_converters.training.qat.fake_quant import LearnedRange
from edgeq_converters.training.qat.initialize import Start
from edgeq_converters.training.qat.quantized_forward import fixed_activation

Convert = Callable[[Path, Path, Recipe, Path, Path], Any]
"""(source, output, recipe, calibration data, an empty folder) -> a value with the `tail` that was chosen."""
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedModel:
    """A .keras or float .tflite model, its recipe, and the integer file of both.

    Attributes:
        tail: the last operations that the conversion gave more bits; None where it chose none.
    """

    model: Path
    recipe: Recipe
    file: Path
    tail: Tail | None = None


class Exporter:
    """Exports models to a folder, all calibrated on the same samples."""

    def __init__(self, convert: Convert, data: LabelledData, workdir: Path, subject: str) -> None:
        self._convert, self._data, self._workdir, self._subject = convert, data, workdir, subject
        self._samples = workdir / "calibration.npz"
        arrays = {f"input_{i}": array for i, array in enumerate(data.arrays)}
        np.savez(self._samples, **arrays)  # type: ignore[arg-type] # its stub takes allow_pickle there

    def path(self, name: str) -> Path:
        """Return the path of a file in the folder."""
        return self._workdir / name

    def convert(self, name: str, model: Path, recipe: Recipe) -> ExportedModel:
        """Convert a model by a recipe."""
        folder = self._workdir / f"{name}-files"
        folder.mkdir()
        file = self._workdir / f"{name}.tflite"
        keras_graph.reset_names()
        converted = self._convert(model, file, recipe, self._samples, folder)
        return ExportedModel(model=model, recipe=recipe, file=file, tail=converted.tail)

    def write(self, name: str, start: Start, plain: Recipe) -> ExportedModel:
        """Round the trained weights to their grids permanently, and export the model."""
        start.forward.snap()
        model = self._workdir / f"{name}.keras"
        _write_reproducible(start.model, model)
        hub = hub_of(start.model, self._workdir / f"{name}-hub.keras", self._subject)
        written = activation_points.find(start.model, hub, self._data)
        recipe = replace(
            plain,
            ranges=_named(start.model, start.points, written, start.ranges),
            calibrator="minmax",  # only for tensors without a learned range: outputs that the kernels fix
            bias_correction=Switch.OFF,  # training already compensates for these errors
            equalization=Switch.OFF,
        )
        return self.convert(name, model, recipe)

    def outputs(self, exported: ExportedModel, data: LabelledData) -> list[npt.NDArray[Any]]:
        """Return the integer file's outputs as real values, samples first."""
        model = Model(data=exported.file.read_bytes(), subject=self._subject)
        samples = Samples(inputs=model.inputs, arrays=data.arrays)
        raw = run_samples(model, samples, advance=ignore)
        return [to_real(array, tensor) for array, tensor in zip(raw, model.outputs, strict=True)]


def hub_of(model: Any, path: Path, subject: str) -> Model:
    """Return the float .tflite of a Keras model.

    Args:
        path: where to save the model; the converter's files go to its folder.
    """
    model.save(path)
    folder = path.with_suffix("")
    folder.mkdir()
    keras_graph.reset_names()
    loaded = load_source(path, folder, announce=lambda _what: None)
    return prepared(Model(data=loaded.model.data, subject=subject))


def _named(
    model: Any, trained: ActivationPoints, written: ActivationPoints, ranges: dict[str, LearnedRange]
) -> tuple[tuple[str, float, float], ...]:
    """Return (tensor, low, high) of every learned range; outputs of softmax, sigmoid and tanh have none.

    The converter names a tensor after the operations fused into it, and it does not fuse a zero bias. So the
    names come from the written model, and the ranges from the same symbols of the trained one.
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


def _write_reproducible(model: Any, path: Path) -> None:
    """Save the model so that the same model gives the same bytes: without the time of saving."""
    dated = path.with_name(f"dated-{path.name}")
    model.save(dated)
    with zipfile.ZipFile(dated) as source, zipfile.ZipFile(path, "w") as target:
        for name in sorted(source.namelist()):
            content = source.read(name)
            if name == "metadata.json":
                content = json.dumps({**json.loads(content), "date_saved": "1980-01-01@00:00:00"}).encode()
            target.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_STORED)
    dated.unlink()
