"""Convert Keras and SavedModel sources to a float .tflite with TensorFlow."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq_converters.data.files import missing
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.normalize import reorder
from edgeq_converters.sources.detect import SourceKind
from edgeq_converters.sources.types import Array, Loaded

_FROZEN = "frozen"
# TensorFlow has no type information: the values are its tensors.
_Tensors = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """A loaded source.

    Attributes:
        call: runs it on tensors by input name, and returns those by output name.
        specs: (name, specification) of each input, in order.
        keep: must live as long as `call`.
    """

    call: Callable[[_Tensors], _Tensors]
    specs: Sequence[tuple[str, Any]]
    keep: object


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frozen:
    """A source as a SavedModel of one function with fixed shapes; its inputs and outputs are in order."""

    folder: Path
    call: Callable[[_Tensors], _Tensors]
    inputs: Sequence[str]
    outputs: Sequence[str]


def load(source: Path, kind: SourceKind, workdir: Path) -> Loaded:
    """Return the source as a float .tflite with batch 1 and a signature.

    The source first becomes a SavedModel of one function with fixed shapes: an open batch would put shape
    arithmetic into the graph, which a full-integer model must not hold.

    Raises:
        ConverterError: EQ104 TensorFlow is not installed, EQ305 the source cannot be loaded or converted,
            EQ306 open shapes.
    """
    frozen = _freeze(source, kind, workdir)
    tf = tensorflow()
    try:
        data = bytes(tf.lite.TFLiteConverter.from_saved_model(str(frozen.folder)).convert())
    except Exception as error:  # TensorFlow raises whatever its C++ code throws
        raise _failure(source, "convert the model to .tflite", error) from error
    model = reorder(Model(data=data, subject=str(source)), inputs=frozen.inputs, outputs=frozen.outputs)

    def reference(arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        result = frozen.call({name: tf.constant(array) for name, array in arrays.items()})
        return {name: value.numpy() for name, value in result.items()}

    return Loaded(kind=kind, model=model, reference=reference)


def tensorflow() -> Any:
    """Import and return TensorFlow.

    Raises:
        ConverterError: EQ104 it is not installed.
    """
    try:
        import tensorflow as tf
    except ImportError as error:
        raise missing("TensorFlow") from error
    return tf


def _freeze(source: Path, kind: SourceKind, workdir: Path) -> _Frozen:
    """Write the source as a SavedModel with one signature of fixed shapes."""
    if kind is SourceKind.LEGACY_KERAS:
        _require_hdf5_model(source)
    tf = tensorflow()
    try:
        opened = _open(tf, source, kind)
        fixed = [_fixed(tf, spec, name, source) for name, spec in opened.specs]

        inputs = [name for name, _ in opened.specs]
        outputs: list[str] = []

        def serve(*tensors: Any) -> Any:
            result = opened.call(dict(zip(inputs, tensors, strict=True)))
            outputs[:] = list(result)
            return result

        module = tf.Module()
        module.keep = opened.keep
        concrete = tf.function(serve, autograph=False).get_concrete_function(*fixed)
        module.serve = concrete
        # Keras 3 hides its variables from tf.Module; hidden ones would not be folded into constants.
        module.captured = list(concrete.graph.variables)
        folder = workdir / _FROZEN
        tf.saved_model.save(module, str(folder), signatures={"serving_default": concrete})
    except ConverterError:
        raise
    except Exception as error:
        raise _failure(source, "load the model", error) from error
    return _Frozen(folder=folder, call=opened.call, inputs=inputs, outputs=outputs)


def _require_hdf5_model(source: Path) -> None:
    # h5py finds damage in a moment; TensorFlow takes seconds to start.
    try:
        import h5py  # type: ignore[import-untyped]
    except ImportError as error:
        raise missing("h5py (installed with TensorFlow)") from error
    try:
        with h5py.File(source, "r") as file:
            complete = "model_config" in file.attrs
    except OSError as error:
        raise ConverterError(
            "EQ305", str(source), f"truncated or damaged .h5 file ({error})", hint="save the model again"
        ) from error
    if not complete:
        raise ConverterError(
            "EQ305",
            str(source),
            "the .h5 file does not hold a model",
            expected="a complete Keras model",
            got="weights only, or another kind of HDF5 file",
            hint="save it with model.save(), not save_weights()",
        )


def _open(tf: Any, source: Path, kind: SourceKind) -> _Opened:
    if kind is SourceKind.SAVED_MODEL:
        return _open_saved_model(tf, source)
    model = _load_keras(source, kind)
    if not getattr(model, "inputs", None):
        raise ConverterError(
            "EQ306",
            str(source),
            "the model's input shape is not known",
            hint="build the model, or call it once, before saving it",
        )
    specs = [(_plain(tensor.name, i), tensor) for i, tensor in enumerate(model.inputs)]
    # A Keras 3 Sequential has no output_names, but its output tensors have names.
    names = getattr(model, "output_names", None) or [tensor.name for tensor in model.outputs]
    outputs = [_plain(name, i, "output") for i, name in enumerate(names)]

    def call(tensors: _Tensors) -> _Tensors:
        values = list(tensors.values())
        result = tf.nest.flatten(model(values if len(values) > 1 else values[0], training=False))
        return dict(zip(outputs, result, strict=True))

    return _Opened(call=call, specs=specs, keep=model)


def _open_saved_model(tf: Any, source: Path) -> _Opened:
    loaded = tf.saved_model.load(str(source))
    signatures = loaded.signatures
    if not signatures:
        raise ConverterError(
            "EQ305", str(source), "the SavedModel has no signature", hint="save it with signatures="
        )
    key = "serving_default" if "serving_default" in signatures else sorted(signatures)[0]
    function = signatures[key]
    specs = sorted(function.structured_input_signature[1].items())

    def call(tensors: _Tensors) -> _Tensors:
        return dict(function(**tensors))

    return _Opened(call=call, specs=specs, keep=loaded)


def _load_keras(source: Path, kind: SourceKind) -> Any:
    """Load with Keras 3, or else with tf_keras: Keras 3 rejects arguments of old layers."""
    import keras

    try:
        return keras.models.load_model(source, compile=False)
    except Exception as first:  # noqa: BLE001 - try the older Keras after any failure; raised below
        try:
            import tf_keras
        except ImportError as error:
            raise missing("tf_keras") from error
        try:
            return tf_keras.models.load_model(str(source), compile=False)
        except Exception:  # noqa: BLE001 - Keras 3's message says more about a broken file
            raise first from None


def _plain(name: str, index: int, what: str = "input") -> str:
    plain = re.sub(r"\W", "_", name.split(":")[0])
    return f"{what}_{index}" if not plain.isidentifier() or keyword.iskeyword(plain) else plain


def _fixed(tf: Any, spec: Any, name: str, source: Path) -> Any:
    shape = list(spec.shape)
    if shape and shape[0] is None:
        shape[0] = 1
    if any(size is None for size in shape):
        raise ConverterError(
            "EQ306",
            str(source),
            f"input `{name}` has open dimensions besides the batch",
            expected="fixed sizes",
            got=str(tuple(spec.shape)),
            hint="save the model with a fixed input shape",
        )
    return tf.TensorSpec(shape, spec.dtype, name=name)


def _failure(source: Path, what: str, error: Exception) -> ConverterError:
    return ConverterError(
        "EQ305",
        str(source),
        f"TensorFlow cannot {what} ({_gist(error)})",
        hint="for a model with custom classes, convert the SavedModel that model.export(folder) writes",
    )


def _gist(error: Exception) -> str:
    # The converter's message starts with compiler locations; the unsupported operation follows further down.
    named = re.findall(r"'(tf\.\w+)' op is neither a custom op nor a flex op", str(error))
    if named:
        return f"no .tflite operation for {', '.join(sorted(set(named)))}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:240]
