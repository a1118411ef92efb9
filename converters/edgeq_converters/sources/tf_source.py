"""The one module that imports TensorFlow: Keras and SavedModel sources become a float .tflite."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeq_converters.data.sample_files import missing
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import tflite_file
from edgeq_converters.sources.detect import SourceKind
from edgeq_converters.sources.types import Loaded

_FROZEN = "frozen"
_Call = Callable[[dict[str, Any]], dict[str, Any]]


def load(source: Path, kind: SourceKind, workdir: Path) -> Loaded:
    """Return the source as a float .tflite with batch 1 and a signature, and as a frozen SavedModel.

    Everything is brought to a SavedModel of one function with fixed shapes first: an open batch would put
    shape arithmetic into the graph, which no full-integer model may hold.

    Raises:
        ConverterError: EQ104 no TensorFlow, EQ305 it cannot be loaded or converted, EQ306 open shapes.
    """
    folder, call, inputs, outputs = _freeze(source, kind, workdir)
    tf = tensorflow()
    try:
        data = bytes(tf.lite.TFLiteConverter.from_saved_model(str(folder)).convert())
    except Exception as error:  # TensorFlow's converter raises whatever its C++ threw
        raise _cannot(source, "convert the model to .tflite", error) from error
    data = tflite_file.ordered(data, inputs=inputs, outputs=outputs, subject=str(source))

    def reference(arrays: Mapping[str, Any]) -> dict[str, Any]:
        result = call({name: tf.constant(array) for name, array in arrays.items()})
        return {name: value.numpy() for name, value in result.items()}

    return Loaded(kind=kind, data=data, frozen=folder, reference=reference)


def to_float(source: Path, kind: SourceKind, workdir: Path) -> tuple[bytes, Path]:
    """Return `load`'s .tflite and the frozen SavedModel's folder."""
    loaded = load(source, kind, workdir)
    return loaded.data, workdir / _FROZEN


def to_integer(
    folder: Path, rows: Iterable[list[Any]], *, names: Sequence[str], io: str, source: Path
) -> bytes:
    """Return a frozen SavedModel as a full-integer .tflite by TensorFlow's own quantizer.

    For models with operations that litert-quantizer does not know. Its ranges are the exact extremes too.

    Args:
        folder: what `freeze` wrote.
        rows: per sample one array an input, in the order of `names`.
        io: `int8` or `float32` inputs and outputs.

    Raises:
        ConverterError: EQ307 when TensorFlow cannot do it either.
    """
    tf = tensorflow()
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (dict(zip(names, row, strict=True)) for row in rows)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    if io == "int8":
        converter.inference_input_type = converter.inference_output_type = tf.int8
    try:
        return bytes(converter.convert())
    except Exception as error:
        raise ConverterError(
            "EQ307",
            str(source),
            f"neither litert-quantizer nor TensorFlow can make it full integer ({_gist(error)})",
            hint="use --scheme dynamic or float16",
        ) from error


def tensorflow() -> Any:
    """Import TensorFlow.

    Raises:
        ConverterError: EQ104.
    """
    try:
        import tensorflow as tf
    except ImportError as error:
        raise missing("TensorFlow") from error
    return tf


def freeze(source: Path, kind: SourceKind, workdir: Path) -> Path:
    """Write the source as a SavedModel with one signature of fixed shapes; return its folder."""
    return _freeze(source, kind, workdir)[0]


def _freeze(source: Path, kind: SourceKind, workdir: Path) -> tuple[Path, _Call, list[str], list[str]]:
    if kind is SourceKind.LEGACY_KERAS:
        _require_whole_hdf5(source)
    tf = tensorflow()
    try:
        call, specs, keep = _open(tf, source, kind)
        fixed = [_fixed(tf, spec, name, source) for name, spec in specs]

        order: list[str] = []

        def serve(*tensors: Any) -> Any:
            result = call(dict(zip([name for name, _ in specs], tensors, strict=True)))
            order[:] = list(result)
            return result

        module = tf.Module()
        module.keep = keep
        concrete = tf.function(serve, autograph=False).get_concrete_function(*fixed)
        module.serve = concrete
        # Keras 3 hides its variables from tf.Module; hidden ones would not be folded into constants.
        module.captured = list(concrete.graph.variables)
        folder = workdir / _FROZEN
        tf.saved_model.save(module, str(folder), signatures={"serving_default": concrete})
    except ConverterError:
        raise
    except Exception as error:
        raise _cannot(source, "load the model", error) from error
    return folder, call, [name for name, _ in specs], order


def _require_whole_hdf5(source: Path) -> None:
    # h5py says so in a moment; TensorFlow takes seconds to come up first.
    try:
        import h5py  # type: ignore[import-untyped]
    except ImportError as error:
        raise missing("h5py (of TensorFlow)") from error
    try:
        with h5py.File(source, "r") as file:
            whole = "model_config" in file.attrs
    except OSError as error:
        raise ConverterError(
            "EQ305", str(source), f"truncated or damaged .h5 file ({error})", hint="save the model again"
        ) from error
    if not whole:
        raise ConverterError(
            "EQ305",
            str(source),
            "the .h5 file holds no model",
            expected="a whole Keras model",
            got="weights only, or another kind of HDF5 file",
            hint="save it by model.save(), not by save_weights()",
        )


def _open(
    tf: Any, source: Path, kind: SourceKind
) -> tuple[Callable[[dict[str, Any]], dict[str, Any]], list[tuple[str, Any]], Any]:
    if kind is SourceKind.SAVED_MODEL:
        return _open_saved_model(tf, source)
    model = _load_keras(source, kind)
    if not getattr(model, "inputs", None):
        raise ConverterError(
            "EQ306",
            str(source),
            "the model's input shape is not known",
            hint="build the model or call it once before saving it",
        )
    specs = [(_plain(tensor.name, i), tensor) for i, tensor in enumerate(model.inputs)]
    # A Keras 3 Sequential has no output_names of its own; its output tensors have names.
    names = getattr(model, "output_names", None) or [tensor.name for tensor in model.outputs]
    outputs = [_plain(name, i, "output") for i, name in enumerate(names)]

    def call(tensors: dict[str, Any]) -> dict[str, Any]:
        values = list(tensors.values())
        result = tf.nest.flatten(model(values if len(values) > 1 else values[0], training=False))
        return dict(zip(outputs, result, strict=True))

    return call, specs, model


def _open_saved_model(
    tf: Any, source: Path
) -> tuple[Callable[[dict[str, Any]], dict[str, Any]], list[tuple[str, Any]], Any]:
    loaded = tf.saved_model.load(str(source))
    signatures = loaded.signatures
    if not signatures:
        raise ConverterError(
            "EQ305", str(source), "the SavedModel has no signature", hint="save it with signatures="
        )
    key = "serving_default" if "serving_default" in signatures else sorted(signatures)[0]
    function = signatures[key]
    specs = sorted(function.structured_input_signature[1].items())

    def call(tensors: dict[str, Any]) -> dict[str, Any]:
        return dict(function(**tensors))

    return call, specs, loaded


def _load_keras(source: Path, kind: SourceKind) -> Any:
    """Load with Keras 3, and with tf_keras where Keras 3 cannot (old layers' arguments)."""
    import keras

    try:
        return keras.models.load_model(source, compile=False)
    except Exception as first:  # noqa: BLE001 - any failure is a reason to try the older Keras; raised below
        try:
            import tf_keras
        except ImportError as error:
            raise missing("tf_keras") from error
        try:
            return tf_keras.models.load_model(str(source), compile=False)
        except Exception:  # noqa: BLE001 - Keras 3's own message says more about a broken file
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


def _cannot(source: Path, what: str, error: Exception) -> ConverterError:
    return ConverterError(
        "EQ305",
        str(source),
        f"TensorFlow cannot {what} ({_gist(error)})",
        hint="for a model with classes of its own, convert the SavedModel that model.export(folder) writes",
    )


def _gist(error: Exception) -> str:
    # The converter's message starts with compiler locations; the operation it cannot do stands further down.
    named = re.findall(r"'(tf\.\w+)' op is neither a custom op nor a flex op", str(error))
    if named:
        return f"no .tflite operation for {', '.join(sorted(set(named)))}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:240]
