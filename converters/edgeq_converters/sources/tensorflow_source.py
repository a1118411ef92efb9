"""Convert Keras and SavedModel sources to a float .tflite with TensorFlow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq_converters.data.files import missing
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.normalize import reorder
from edgeq_converters.sources import half_precision
from edgeq_converters.sources.detect import SourceKind
from edgeq_converters.sources.keras_source import open_keras
from edgeq_converters.sources.shapes import fixed_shape, require_known_inputs
from edgeq_converters.sources.signatures import choose
from edgeq_converters.sources.types import SEED, CheckInputs, Loaded, Opened, SourceOptions
from edgeq_converters.values import Interface, TensorInfo

_FROZEN = "frozen"


def load(
    source: Path,
    kind: SourceKind,
    workdir: Path,
    *,
    options: SourceOptions | None = None,
    check: CheckInputs | None = None,
) -> Loaded:
    """Return the source as a float .tflite with batch 1 and a signature.

    The source first becomes a SavedModel of one function with fixed shapes: an open batch would put shape
    arithmetic into the graph, which a full-integer model must not hold.

    Args:
        check: called with the inputs before the model is traced and converted, which takes most of the time.

    Raises:
        ConverterError: EQ104 TensorFlow is not installed, EQ305 the source cannot be loaded or converted,
            EQ306 open shapes, EQ333 a signature must be chosen; as `check`.
    """
    tf = tensorflow()
    frozen = _freeze(tf, source, kind, workdir, options or SourceOptions(), check)
    try:
        data = bytes(tf.lite.TFLiteConverter.from_saved_model(str(frozen.folder)).convert())
    except Exception as error:  # TensorFlow raises whatever its C++ code throws
        raise _failure(source, "convert the model to .tflite", error) from error
    model = reorder(
        Model(data=data, subject=str(source)),
        inputs=[tensor.name for tensor in frozen.interface.inputs],
        outputs=[tensor.name for tensor in frozen.interface.outputs],
    )
    types = {name: spec.dtype for name, spec in frozen.opened.specs}

    def reference(arrays: Mapping[str, Any]) -> dict[str, Any]:
        result = frozen.opened.call(
            {name: tf.cast(tf.constant(array), types[name]) for name, array in arrays.items()}
        )
        return {name: value.numpy() for name, value in result.items()}

    return Loaded(
        kind=kind,
        model=model,
        interface=frozen.interface,
        reference=reference,
        half=frozen.half,
        notes=(*frozen.opened.notes, *([half_precision.NOTE] if frozen.half else [])),
    )


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frozen:
    """A SavedModel of one function with fixed shapes, and what it was made of.

    Attributes:
        half: whether the source computes in float16.
    """

    folder: Path
    opened: Opened
    interface: Interface
    half: bool


def _freeze(
    tf: Any,
    source: Path,
    kind: SourceKind,
    workdir: Path,
    options: SourceOptions,
    check: CheckInputs | None,
) -> _Frozen:
    try:
        opened = _open(tf, source, kind, options)
        names = [name for name, _ in opened.specs]
        require_known_inputs(options, names, subject=str(source))
        specs = [_fixed(tf, spec, name, source, options, opened) for name, spec in opened.specs]
        inputs = tuple(_info(name, spec) for name, spec in zip(names, specs, strict=True))
        if check is not None:
            check(inputs)

        order: list[str] = []

        def serve(*tensors: Any) -> Any:
            result = _distinct(tf, opened.call(dict(zip(names, tensors, strict=True))), tensors)
            order[:] = list(result)
            return result

        module = tf.Module()
        module.keep = opened.keep
        with opened.without_seeds():
            concrete = tf.function(serve, autograph=False).get_concrete_function(*specs)
        if _needs_seed(concrete):  # it is random in inference too
            concrete = tf.function(serve, autograph=False).get_concrete_function(*specs)
        outputs = tuple(_info(name, concrete.structured_outputs[name]) for name in order)
        half = half_precision.is_used(tf, concrete)
        if half:
            concrete = half_precision.widened(tf, concrete, names, order)
        folder = workdir / _FROZEN
        try:
            _save(tf, module, concrete, folder)
        except KeyError:
            # A random layer's seed is a variable that the model does not list. Inference does not read it.
            _save(tf, tf.Module(), half_precision.widened(tf, concrete, names, order), folder)
    except ConverterError:
        raise
    except Exception as error:
        raise _failure(source, "load the model", error) from error
    return _Frozen(
        folder=folder, opened=opened, interface=Interface(inputs=inputs, outputs=outputs), half=half
    )


def _needs_seed(concrete: Any) -> bool:
    """Return whether an output depends on a random layer's seed."""
    waiting = [tensor.op for tensor in concrete.outputs]
    seen = set()
    while waiting:
        operation = waiting.pop()
        if operation.name not in seen:
            seen.add(operation.name)
            waiting += [tensor.op for tensor in operation.inputs]
    return any(SEED in name for name in seen)


def _save(tf: Any, module: Any, concrete: Any, folder: Path) -> None:
    module.serve = concrete
    # Keras 3 hides its variables from tf.Module; hidden ones would not be folded into constants.
    module.captured = list(concrete.graph.variables)
    # Inference needs no gradient, and a custom one (of swish, for example) may refer to what was folded.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": concrete}, options=options)


def _open(tf: Any, source: Path, kind: SourceKind, options: SourceOptions) -> Opened:
    if kind is SourceKind.SAVED_MODEL:
        return _open_saved_model(tf, source, options)
    if options.signature:
        raise ConverterError(
            "EQ333",
            str(source),
            f"a {kind} model has no signatures",
            got=options.signature,
            hint="leave --signature out",
        )
    return open_keras(source, kind)


def _open_saved_model(tf: Any, source: Path, options: SourceOptions) -> Opened:
    loaded = tf.saved_model.load(str(source))
    signatures = loaded.signatures
    if not signatures:
        raise ConverterError(
            "EQ305", str(source), "the SavedModel has no signature", hint="save it with signatures="
        )
    key, notes = choose(tuple(signatures), options.signature, subject=str(source))
    function = signatures[key]
    specs = sorted(function.structured_input_signature[1].items())
    assets = sorted(file.name for file in (source / "assets").glob("*") if file.is_file())
    if assets:
        notes = (*notes, f"a .tflite holds no assets; the SavedModel's stay beside it: {', '.join(assets)}")

    def call(tensors: Mapping[str, Any]) -> dict[str, Any]:
        return dict(function(**tensors))

    return Opened(call=call, specs=tuple(specs), keep=loaded, batch_is_first=False, notes=notes)


def _distinct(tf: Any, outputs: Mapping[str, Any], inputs: tuple[Any, ...]) -> dict[str, Any]:
    """Return the outputs, each a tensor of its own: the converter would merge equal ones into one."""
    seen = {id(tensor) for tensor in inputs}
    result = {}
    for name, tensor in outputs.items():
        result[name] = tf.identity(tensor) if id(tensor) in seen else tensor
        seen.add(id(tensor))
    return result


def _fixed(tf: Any, spec: Any, name: str, source: Path, options: SourceOptions, opened: Opened) -> Any:
    shape = tf.TensorShape(spec.shape)
    sizes = None if shape.rank is None else shape.as_list()
    fixed = fixed_shape(name, sizes, options, batch_is_first=opened.batch_is_first, subject=str(source))
    return tf.TensorSpec(fixed, spec.dtype, name=name)


def _info(name: str, spec: Any) -> TensorInfo:
    sizes = spec.shape.as_list() if spec.shape.rank is not None else []
    dtype = str(getattr(spec.dtype, "name", spec.dtype))
    return TensorInfo(
        name=name,
        shape=tuple(-1 if size is None else int(size) for size in sizes),
        dtype="float32" if dtype in half_precision.TYPES else dtype,
    )


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
