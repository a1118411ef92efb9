"""The one module that imports TensorFlow: Keras and SavedModel sources become a float .tflite."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeq_converters.errors import ConverterError
from edgeq_converters.sample_files import missing
from edgeq_converters.sources import SourceKind


def to_float(source: Path, kind: SourceKind, workdir: Path) -> bytes:
    """Return the source as a float .tflite with batch 1 and a signature.

    Everything is brought to a SavedModel of one function with fixed shapes first: an open batch would put
    shape arithmetic into the graph, which no full-integer model may hold.

    Raises:
        ConverterError: EQ104 no TensorFlow, EQ305 it cannot be loaded or converted, EQ306 open shapes.
    """
    folder = freeze(source, kind, workdir)
    tf = tensorflow()
    try:
        return bytes(tf.lite.TFLiteConverter.from_saved_model(str(folder)).convert())
    except Exception as error:  # TensorFlow's converter raises whatever its C++ threw
        raise _cannot(source, "convert to .tflite", error) from error


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
    tf = tensorflow()
    try:
        call, specs, keep = _open(tf, source, kind)
        fixed = [_fixed(tf, spec, name, source) for name, spec in specs]

        def serve(*tensors: Any) -> Any:
            return call(dict(zip([name for name, _ in specs], tensors, strict=True)))

        module = tf.Module()
        module.keep = keep
        concrete = tf.function(serve, autograph=False).get_concrete_function(*fixed)
        module.serve = concrete
        # Keras 3 hides its variables from tf.Module; hidden ones would not be folded into constants.
        module.captured = list(concrete.graph.variables)
        folder = workdir / "frozen"
        tf.saved_model.save(module, str(folder), signatures={"serving_default": concrete})
    except ConverterError:
        raise
    except Exception as error:
        raise _cannot(source, "load", error) from error
    return folder


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
    outputs = [_plain(name, i, "output") for i, name in enumerate(model.output_names)]

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
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    short = f"{type(error).__name__}: {lines[0] if lines else ''}"[:240]
    return ConverterError(
        "EQ305",
        str(source),
        f"TensorFlow cannot {what} the model ({short})",
        hint="load and call the model in Python to see more",
    )
