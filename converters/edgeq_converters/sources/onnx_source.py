"""ONNX sources: onnx2tf makes a SavedModel of them, which goes the way of every SavedModel."""

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

from edgeq_converters.data.sample_files import missing
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import inference, tflite_file
from edgeq_converters.sources.detect import SourceKind
from edgeq_converters.sources.types import Loaded
from edgeq_converters.values import TensorInfo

Array = npt.NDArray[Any]
_Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]


def load(source: Path, workdir: Path) -> Loaded:
    """Return an ONNX model as a float .tflite with batch 1, channels last as .tflite has them.

    Raises:
        ConverterError: EQ104 without the extra `onnx`, EQ305 it cannot be read or converted, EQ306 open
            shapes.
    """
    onnx = _package("onnx")
    model = _read(onnx, source)
    shapes = _fixed_shapes(model, source)
    folder = _saved_model(onnx, model, source, workdir / "onnx")
    from edgeq_converters.sources import tf_source

    made = tf_source.load(folder, SourceKind.SAVED_MODEL, workdir)
    inputs, outputs = tflite_file.inputs_and_outputs(tflite_file.parse(made.data, subject=str(source)))
    theirs = _evaluator(onnx, model, source)
    names = dict(zip((t.name for t in inputs), _paired(inputs, list(shapes), source), strict=True))
    layouts = {tensor.name: _axes(shapes[names[tensor.name]], tensor.shape) for tensor in inputs}

    def run(arrays: Mapping[str, Array]) -> list[Array]:
        fed = {names[name]: _back(array, layouts[name]) for name, array in arrays.items()}
        return theirs(fed)

    axes = dict(
        zip(
            (tensor.name for tensor in outputs),
            _output_axes(made.data, inputs, outputs, run, source),
            strict=True,
        )
    )
    places = list(shapes)
    data = tflite_file.ordered(
        made.data,
        inputs=sorted(names, key=lambda name: places.index(names[name])),
        outputs=sorted(axes, key=lambda name: axes[name][0]),
        subject=str(source),
    )

    def reference(arrays: Mapping[str, Array]) -> dict[str, Array]:
        results = run(arrays)
        return {name: results[which].transpose(order) for name, (which, order) in axes.items()}

    moved = {name: order for name, order in layouts.items() if order != tuple(range(len(order)))}
    notes = tuple(
        f"input `{name}` is channels last in the .tflite: {_text(shapes[names[name]])} became "
        f"{_text(next(t.shape for t in inputs if t.name == name))}"
        for name in moved
    )
    return replace(
        made, data=data, kind=SourceKind.ONNX, reference=reference, layouts=moved, tools=_TOOLS, notes=notes
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
        onnx.checker.check_model(str(source))
    except Exception as error:  # protobuf and the checker raise their own kinds
        raise ConverterError(
            "EQ305",
            str(source),
            f"truncated or damaged .onnx file ({_gist(error)})",
            hint="export the model again; python -c \"import onnx; onnx.checker.check_model('MODEL.onnx')\"",
        ) from error
    return model


def _fixed_shapes(model: Any, source: Path) -> dict[str, tuple[int, ...]]:
    constants = {item.name for item in model.graph.initializer}
    found = {}
    for given in model.graph.input:
        if given.name in constants:
            continue
        kind = given.type.tensor_type
        if not given.type.HasField("tensor_type") or not kind.HasField("shape"):
            raise ConverterError(
                "EQ306",
                str(source),
                f"the shape of input `{given.name}` is not known",
                hint="export it with one",
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
        found[given.name] = (max(sizes[0], 1), *sizes[1:]) if sizes else ()
    return found


def _saved_model(onnx: Any, model: Any, source: Path, folder: Path) -> Path:
    folder.mkdir()
    convert = _package("onnx2tf").convert
    # It downloads these images for models with an image input, unless they lie in the current folder. It
    # uses them only to compare with itself; nothing of a conversion may need a network.
    images = np.random.default_rng(0).random((20, 128, 128, 3), np.float32)
    np.save(folder / "calibration_image_sample_data_20x128x128x3_float32.npy", images)
    try:
        onnx.save(model, str(folder / "copy.onnx"))  # onnx2tf writes into the file that it reads
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
    except (Exception, SystemExit) as error:  # it ends the process where it knows no more
        raise ConverterError(
            "EQ305",
            str(source),
            f"onnx2tf cannot convert the model ({_gist(error)})",
            hint="simplify it first (onnxsim MODEL.onnx SIMPLE.onnx), or export it with another opset",
        ) from error
    return folder / "saved_model"


def _evaluator(onnx: Any, model: Any, source: Path) -> Callable[[Mapping[str, Array]], list[Array]]:
    """Return ONNX's own reference evaluation, which needs no further package."""
    try:
        engine = import_module("onnx.reference").ReferenceEvaluator(model)
    except Exception as error:
        raise ConverterError(
            "EQ305", str(source), f"onnx cannot evaluate the model ({_gist(error)})", hint="export it again"
        ) from error
    return lambda fed: [np.asarray(item) for item in engine.run(None, dict(fed))]


def _paired(inputs: Sequence[TensorInfo], names: Sequence[str], source: Path) -> list[str]:
    """Return the ONNX input of each .tflite input: by its name as TensorFlow writes it, else by order."""
    plain = {re.sub(r"\W", "_", name): name for name in names}
    found = [plain.get(re.sub(r"\W", "_", tensor.name)) for tensor in inputs]
    known = [name for name in found if name is not None]
    if len(known) == len(inputs) == len(set(known)):
        return known
    if len(names) == len(inputs) == 1:
        return list(names)
    raise ConverterError(
        "EQ305",
        str(source),
        "onnx2tf gave the inputs other names",
        expected=", ".join(names),
        got=", ".join(tensor.name for tensor in inputs),
    )


def _axes(theirs: Sequence[int], ours: Sequence[int]) -> tuple[int, ...]:
    """Return how ours is theirs transposed; channels last is tried first, as onnx2tf does."""
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


def _output_axes(
    data: bytes, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo], run: Any, source: Path
) -> list[tuple[int, tuple[int, ...]]]:
    """Return for each .tflite output which ONNX output it is and how it is transposed.

    Names do not tell (TensorFlow renames outputs), shapes may not (square maps): one run does.
    """
    random = np.random.default_rng(0)
    fed = {}
    for tensor in inputs:
        dtype = np.dtype(tensor.dtype)
        values = (
            random.standard_normal(tensor.shape) if dtype.kind == "f" else random.integers(0, 2, tensor.shape)
        )
        fed[tensor.name] = values.astype(dtype)
    interpreter = inference.open_interpreter(data, subject=str(source))
    details = interpreter.get_input_details()
    rows = [fed[tensor.name] for tensor in inputs]
    inference.invoke(interpreter, [detail["index"] for detail in details], rows, subject=str(source))
    theirs = run(fed)
    found = []
    for tensor, detail in zip(outputs, interpreter.get_output_details(), strict=True):
        ours = np.array(interpreter.get_tensor(detail["index"]), np.float64)
        tried = [
            (float(np.abs(result.transpose(order) - ours).sum()), which, order)
            for which, result in enumerate(theirs)
            for order in _orders(result.ndim)
            if tuple(result.shape[i] for i in order) == ours.shape
        ]
        if not tried:
            raise ConverterError(
                "EQ322",
                str(source),
                f"output `{tensor.name}` has a shape that no output of the source has",
                expected=" or ".join(_text(result.shape) for result in theirs),
                got=_text(ours.shape),
            )
        _, which, order = min(tried, key=lambda item: item[0])
        found.append((which, order))
    return found


def _text(shape: Sequence[int]) -> str:
    return f"({', '.join(map(str, shape))})"


def _gist(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]
