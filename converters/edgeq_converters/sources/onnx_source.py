"""Convert ONNX models to a float .tflite: onnx2tf writes a SavedModel, which TensorFlow converts."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.data.files import missing
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph.interpreter import Interpreter
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.normalize import reorder
from edgeq_converters.sources.detect import SourceKind
from edgeq_converters.sources.types import Loaded
from edgeq_converters.values import TensorInfo

Array = npt.NDArray[Any]
_Run = Callable[[Mapping[str, Array]], list[Array]]


def load(source: Path, workdir: Path) -> Loaded:
    """Return an ONNX model as a float .tflite with batch 1 and channels last, as is usual in .tflite.

    Raises:
        ConverterError: EQ104 the extra `onnx` is not installed, EQ305 the model cannot be read or converted,
            EQ306 open shapes.
    """
    onnx = _package("onnx")
    model = _read(onnx, source)
    shapes = _fixed_shapes(model, source)
    folder = _saved_model(onnx, model, source, workdir / "onnx")
    from edgeq_converters.sources import tensorflow_source

    loaded = tensorflow_source.load(folder, SourceKind.SAVED_MODEL, workdir)
    converted = Model(data=loaded.model.data, subject=str(source))
    run_onnx = _evaluator(onnx, model, source)
    onnx_names = dict(
        zip((t.name for t in converted.inputs), _paired(converted.inputs, list(shapes), source), strict=True)
    )
    layouts = {
        tensor.name: _axes(shapes[onnx_names[tensor.name]], tensor.shape) for tensor in converted.inputs
    }

    def run(arrays: Mapping[str, Array]) -> list[Array]:
        return run_onnx({onnx_names[name]: _back(array, layouts[name]) for name, array in arrays.items()})

    axes = dict(zip((tensor.name for tensor in converted.outputs), _output_axes(converted, run), strict=True))
    onnx_order = list(shapes)
    tflite = reorder(
        converted,
        inputs=sorted(onnx_names, key=lambda name: onnx_order.index(onnx_names[name])),
        outputs=sorted(axes, key=lambda name: axes[name][0]),
    )

    def reference(arrays: Mapping[str, Array]) -> dict[str, Array]:
        results = run(arrays)
        return {name: results[which].transpose(order) for name, (which, order) in axes.items()}

    transposed = {name: order for name, order in layouts.items() if order != tuple(range(len(order)))}
    notes = tuple(
        f"input `{name}` is channels last in the .tflite: {_text(shapes[onnx_names[name]])} became "
        f"{_text(next(t.shape for t in converted.inputs if t.name == name))}"
        for name in transposed
    )
    return replace(
        loaded,
        model=tflite,
        kind=SourceKind.ONNX,
        reference=reference,
        layouts=transposed,
        tools=_TOOLS,
        notes=notes,
    )


_TOOLS = ("onnx2tf", "onnx", "onnx-graphsurgeon", "sng4onnx")


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise missing(error.name or name, extra="onnx") from error


def _read(onnx: Any, source: Path) -> Any:
    try:
        model = onnx.load(str(source))
    except Exception as error:  # protobuf raises exceptions of its own
        raise ConverterError(
            "EQ305", str(source), f"the .onnx file cannot be read ({_gist(error)})", hint=_EXPORT_AGAIN
        ) from error
    try:
        onnx.checker.check_model(str(source))
    except Exception as error:  # the checker raises exceptions of its own
        raise ConverterError(
            "EQ305", str(source), f"not a valid ONNX model ({_gist(error)})", hint=_EXPORT_AGAIN
        ) from error
    return model


_EXPORT_AGAIN = "export the model again; python -c \"import onnx; onnx.checker.check_model('MODEL.onnx')\""


def _fixed_shapes(model: Any, source: Path) -> dict[str, tuple[int, ...]]:
    constants = {item.name for item in model.graph.initializer}
    shapes = {}
    for given in model.graph.input:
        if given.name in constants:
            continue
        kind = given.type.tensor_type
        if not given.type.HasField("tensor_type") or not kind.HasField("shape"):
            raise ConverterError(
                "EQ306",
                str(source),
                f"the shape of input `{given.name}` is not known",
                hint="export the model with fixed input shapes",
            )
        sizes = [size.dim_value if size.HasField("dim_value") else 0 for size in kind.shape.dim]
        if any(size < 1 for size in sizes[1:]):
            named = [size.dim_param or str(size.dim_value or "?") for size in kind.shape.dim]
            raise ConverterError(
                "EQ306",
                str(source),
                f"input `{given.name}` has open dimensions besides the batch",
                expected="fixed sizes",
                got=f"({', '.join(named)})",
                hint="export the model with a fixed input shape, without dynamic_axes besides the batch",
            )
        shapes[given.name] = (max(sizes[0], 1), *sizes[1:]) if sizes else ()
    return shapes


def _saved_model(onnx: Any, model: Any, source: Path, folder: Path) -> Path:
    folder.mkdir()
    convert = _package("onnx2tf").convert
    # onnx2tf downloads these images for models with an image input, unless the current folder holds them. It
    # only checks itself with them, and a conversion must not need a network.
    images = np.random.default_rng(0).random((20, 128, 128, 3), np.float32)
    np.save(folder / "calibration_image_sample_data_20x128x128x3_float32.npy", images)
    try:
        onnx.save(model, str(folder / "copy.onnx"))  # onnx2tf writes to the file that it reads
        with contextlib.chdir(folder):
            convert(
                input_onnx_file_path="copy.onnx",
                output_folder_path="saved_model",
                output_signaturedefs=True,
                not_use_onnxsim=True,
                batch_size=1,
                non_verbose=True,
                verbosity="error",
            )
    except ImportError as error:
        raise missing(error.name or "a package of onnx2tf", extra="onnx") from error
    except (Exception, SystemExit) as error:  # it exits the process on some failures
        raise ConverterError(
            "EQ305",
            str(source),
            f"onnx2tf cannot convert the model ({_gist(error)})",
            hint="simplify it first (onnxsim MODEL.onnx SIMPLE.onnx), or export it with another opset",
        ) from error
    return folder / "saved_model"


def _evaluator(onnx: Any, model: Any, source: Path) -> _Run:
    """Return ONNX's own reference evaluator, which needs no other package."""
    try:
        engine = import_module("onnx.reference").ReferenceEvaluator(model)
    except Exception as error:
        raise ConverterError(
            "EQ305", str(source), f"onnx cannot evaluate the model ({_gist(error)})", hint="export it again"
        ) from error
    return lambda arguments: [np.asarray(item) for item in engine.run(None, dict(arguments))]


def _paired(inputs: Sequence[TensorInfo], names: Sequence[str], source: Path) -> list[str]:
    """Return the ONNX input of each .tflite input, matched by name in TensorFlow's spelling."""
    plain = {re.sub(r"\W", "_", name): name for name in names}
    matches = [plain.get(re.sub(r"\W", "_", tensor.name)) for tensor in inputs]
    known = [name for name in matches if name is not None]
    if len(known) == len(inputs) == len(set(known)):
        return known
    if len(names) == len(inputs) == 1:
        return list(names)
    raise ConverterError(
        "EQ305",
        str(source),
        "onnx2tf renamed the inputs",
        expected=", ".join(names),
        got=", ".join(tensor.name for tensor in inputs),
    )


def _axes(theirs: Sequence[int], ours: Sequence[int]) -> tuple[int, ...]:
    """Return the axes that transpose their shape into ours; channels last first, as onnx2tf does."""
    for order in _orders(len(theirs)):
        if tuple(theirs[i] for i in order) == tuple(ours):
            return order
    return tuple(range(len(theirs)))


def _orders(rank: int) -> list[tuple[int, ...]]:
    same = tuple(range(rank))
    last = (0, *range(2, rank), 1) if rank > 2 else same
    others = itertools.permutations(same) if rank <= 4 else iter(())
    return list(dict.fromkeys([last, same, *others]))


def _back(array: Array, order: Sequence[int]) -> Array:
    return np.ascontiguousarray(array.transpose(np.argsort(order))) if array.ndim else array


def _output_axes(model: Model, run: _Run) -> list[tuple[int, tuple[int, ...]]]:
    """Return (which ONNX output it is, how that is transposed) for each output of the .tflite.

    Names do not decide, because TensorFlow renames outputs; shapes may be ambiguous (square feature maps).
    One run on random values does.
    """
    random = np.random.default_rng(0)
    arguments = {}
    for tensor in model.inputs:
        dtype = np.dtype(tensor.dtype)
        values = (
            random.standard_normal(tensor.shape) if dtype.kind == "f" else random.integers(0, 2, tensor.shape)
        )
        arguments[tensor.name] = values.astype(dtype)
    interpreter = Interpreter(model)
    interpreter.run([arguments[tensor.name] for tensor in model.inputs])
    theirs = run(arguments)
    result = []
    for tensor, output in zip(model.outputs, interpreter.results(), strict=True):
        ours = np.asarray(output, np.float64)
        candidates = [
            (float(np.abs(array.transpose(order) - ours).sum()), which, order)
            for which, array in enumerate(theirs)
            for order in _orders(array.ndim)
            if tuple(array.shape[i] for i in order) == ours.shape
        ]
        if not candidates:
            raise ConverterError(
                "EQ322",
                model.subject,
                f"no output of the source has the shape of output `{tensor.name}`",
                expected=" or ".join(_text(array.shape) for array in theirs),
                got=_text(ours.shape),
            )
        _, which, order = min(candidates, key=lambda item: item[0])
        result.append((which, order))
    return result


def _text(shape: Sequence[int]) -> str:
    return f"({', '.join(map(str, shape))})"


def _gist(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]
