"""Every kind of source behind one function: a float .tflite, and a way to run the source itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from edgeq_converters.data.sample_files import RawSamples
from edgeq_converters.sources import detect
from edgeq_converters.sources.detect import SourceKind
from edgeq_converters.sources.types import Loaded
from edgeq_converters.values import TensorInfo


def load_source(source: Path, workdir: Path, *, announce: Callable[[str], object]) -> Loaded:
    """Return any source as a float .tflite.

    Args:
        workdir: an empty folder for the libraries' files.
        announce: called with what takes its time, before it does.

    Raises:
        ConverterError: EQ104 a package is missing, EQ301, EQ302 no model, EQ305 it cannot be loaded or
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
    from edgeq_converters.sources import tf_source

    return tf_source.load(source, kind, workdir)


def _tflite(source: Path) -> Loaded:
    from edgeq_converters.sources import float16_weights

    data, widened = float16_weights.as_float32(source.read_bytes(), subject=str(source))
    said = (f"{widened} constants were stored in float16; they are float32 here, with the same values",)
    return Loaded(kind=SourceKind.TFLITE, data=data, notes=said if widened else ())


def relaid(raw: RawSamples, inputs: Sequence[TensorInfo], loaded: Loaded) -> RawSamples:
    """Return samples in the .tflite's layout where they were given in the source's (channels first)."""
    arrays = dict(raw.arrays)
    for tensor in inputs:
        axes = (loaded.layouts or {}).get(tensor.name)
        name = tensor.name if tensor.name in arrays else "x"
        if axes is None or name not in arrays or arrays[name].ndim != len(axes):
            continue
        sizes, wanted = arrays[name].shape[1:], tensor.shape[1:]
        if sizes != wanted and tuple(sizes[axis - 1] for axis in axes[1:]) == wanted:
            arrays[name] = arrays[name].transpose(axes)
    return replace(raw, arrays=arrays)
