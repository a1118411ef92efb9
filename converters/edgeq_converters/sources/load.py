"""Load a source of any kind as a float .tflite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edgeq_converters.data.files import RawSamples
from edgeq_converters.graph.model import Model
from edgeq_converters.sources import detect
from edgeq_converters.sources.detect import SourceKind
from edgeq_converters.sources.types import Loaded


def load_source(source: Path, workdir: Path, *, announce: Callable[[str], object]) -> Loaded:
    """Return a source of any kind as a float .tflite.

    Args:
        workdir: an empty folder for the libraries' files.
        announce: called with the name of each slow step before it starts.

    Raises:
        ConverterError: EQ104 a package is missing, EQ301, EQ302 not a model, EQ305 it cannot be loaded or
            converted, EQ306 open shapes.
    """
    kind = detect.detect(source)
    if kind is SourceKind.TFLITE:
        return _tflite(source)
    if kind is SourceKind.ONNX:
        announce("load with onnx2tf")
        from edgeq_converters.sources import onnx_source

        return onnx_source.load(source, workdir)
    if kind is SourceKind.TORCH:
        announce("load with litert-torch")
        from edgeq_converters.sources import torch_source

        return torch_source.load(source, workdir)
    announce("load with TensorFlow")
    from edgeq_converters.sources import tensorflow_source

    return tensorflow_source.load(source, kind, workdir)


def _tflite(source: Path) -> Loaded:
    from edgeq_converters.sources import float16_weights

    model, widened = float16_weights.widen(Model.read(source))
    note = f"{widened} constants are stored in float16; they were widened to float32, with the same values"
    return Loaded(kind=SourceKind.TFLITE, model=model, notes=(note,) if widened else ())


def to_tflite_layout(raw: RawSamples, loaded: Loaded) -> RawSamples:
    """Return samples in the .tflite's layout; arrays in the source's (channels first) are transposed."""
    arrays = dict(raw.arrays)
    for tensor in loaded.model.inputs:
        axes = (loaded.layouts or {}).get(tensor.name)
        name = tensor.name if tensor.name in arrays else "x"
        if axes is None or name not in arrays or arrays[name].ndim != len(axes):
            continue
        sizes, expected = arrays[name].shape[1:], tensor.shape[1:]
        if sizes != expected and tuple(sizes[axis - 1] for axis in axes[1:]) == expected:
            arrays[name] = arrays[name].transpose(axes)
    return replace(raw, arrays=arrays)
