"""Load a source of any kind as a float .tflite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edgeq_converters.data.files import RawSamples
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph.dead_operations import without_dead
from edgeq_converters.graph.interface import interface_of, require_interface
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.rewrite.custom_operations import with_builtin_operations
from edgeq_converters.sources import detect, keras_config, onnx_file
from edgeq_converters.sources.detect import SourceKind
from edgeq_converters.sources.identities import without_identities
from edgeq_converters.sources.shapes import fixed_shape, require_known_inputs
from edgeq_converters.sources.types import CheckInputs, Loaded, SourceOptions


def load_source(
    source: Path,
    workdir: Path,
    *,
    announce: Callable[[str], object],
    options: SourceOptions | None = None,
    check: CheckInputs | None = None,
    one_signature: bool = True,
) -> Loaded:
    """Return a source of any kind as a float .tflite with the source's inputs and outputs.

    Operations whose results nothing reads are removed, and those that cannot change a value.

    Args:
        workdir: an empty folder for the libraries' files.
        announce: called with the name of each slow step before it starts.
        options: the user's choices where the source leaves something open.
        check: called with the inputs as soon as they are known.
        one_signature: cut a .tflite with several signatures down to one.

    Raises:
        ConverterError: EQ104 a package is missing, EQ301, EQ302 not a model, EQ305 it cannot be loaded or
            converted, EQ306 open shapes, EQ322 the .tflite has other inputs or outputs, EQ333 a signature
            must be chosen, EQ336 onnx2tf cannot be installed; as `check`.
    """
    options = options or SourceOptions()
    loaded = _load(source, workdir, announce, options, check, one_signature)
    if loaded.interface is not None:
        require_interface(loaded.model, loaded.interface)
    return replace(loaded, model=without_dead(without_identities(loaded.model)))


def _load(
    source: Path,
    workdir: Path,
    announce: Callable[[str], object],
    options: SourceOptions,
    check: CheckInputs | None,
    one_signature: bool,
) -> Loaded:
    kind = detect.detect(source)
    if kind is SourceKind.TFLITE:
        return _tflite(source, options, check, one_signature=one_signature)
    if kind is SourceKind.ONNX:
        onnx_file.require_whole(source)
    _refuse_options(source, kind, options)
    if kind is SourceKind.ONNX:
        from edgeq_converters.sources import onnx_source

        return onnx_source.load(source, workdir, options=options, announce=announce)
    if kind is SourceKind.TORCH:
        announce("load with litert-torch")
        from edgeq_converters.sources import torch_source

        return torch_source.load(source, workdir, options=options)
    if kind in {SourceKind.KERAS, SourceKind.LEGACY_KERAS}:
        _check_declared(source, kind, options, check)
    announce("load with TensorFlow")
    from edgeq_converters.sources import tensorflow_source

    return tensorflow_source.load(source, kind, workdir, options=options, check=check)


def _check_declared(
    source: Path, kind: SourceKind, options: SourceOptions, check: CheckInputs | None
) -> None:
    """Compare shapes and data with what a Keras file declares, before TensorFlow starts."""
    declared = keras_config.declared_inputs(source, kind)
    if declared is None:
        return
    require_known_inputs(options, [tensor.name for tensor in declared], subject=str(source))
    inputs = []
    for tensor in declared:
        sizes = [None if size < 0 else size for size in tensor.shape]
        fixed = fixed_shape(tensor.name, sizes, options, batch_is_first=True, subject=str(source))
        inputs.append(replace(tensor, shape=fixed))
    if check is not None:
        check(inputs)


def _tflite(
    source: Path, options: SourceOptions, check: CheckInputs | None, *, one_signature: bool
) -> Loaded:
    from edgeq_converters.sources import resize, signatures, stored_weights

    model = Model.read(source)
    notes: list[str] = []
    if options.signature or one_signature:
        model, about_others = signatures.only(model, options.signature)
        notes += about_others
    declared = interface_of(model)
    weights = stored_weights.unpacked(model)
    model, about_custom = with_builtin_operations(weights.model)
    notes += (*weights.notes, *about_custom)
    resized = resize.with_shapes(model, options)
    if check is not None:
        check(resized.inputs)
    return Loaded(
        kind=SourceKind.TFLITE,
        model=resized,
        interface=declared if resized is model else None,
        notes=tuple(notes),
    )


def _refuse_options(source: Path, kind: SourceKind, options: SourceOptions) -> None:
    if options.signature and kind in {SourceKind.ONNX, SourceKind.TORCH}:
        raise ConverterError(
            "EQ333",
            str(source),
            "--signature is for SavedModel and .tflite sources",
            got=f"a {kind} model, which has one graph",
            hint="leave --signature out",
        )
    if options.constants and kind is not SourceKind.ONNX:
        raise ConverterError(
            "EQ306",
            str(source),
            "--constant is for ONNX sources",
            got=f"a {kind} model",
            hint="leave --constant out; build the source without this input",
        )


def to_tflite_layout(raw: RawSamples, loaded: Loaded) -> RawSamples:
    """Return samples in the .tflite's layout; arrays in the source's (channels first) are transposed.

    Arrays of whole sequences have one more axis, of the steps.
    """
    arrays = dict(raw.arrays)
    for tensor in loaded.model.inputs:
        axes = (loaded.layouts or {}).get(tensor.name)
        name = tensor.name if tensor.name in arrays else "x"
        if axes is None or name not in arrays or arrays[name].ndim not in (len(axes), len(axes) + 1):
            continue
        more = arrays[name].ndim - len(axes)
        sizes, expected = arrays[name].shape[1 + more :], tensor.shape[1:]
        if sizes != expected and tuple(sizes[axis - 1] for axis in axes[1:]) == expected:
            arrays[name] = arrays[name].transpose(*range(1 + more), *(axis + more for axis in axes[1:]))
    return replace(raw, arrays=arrays)
