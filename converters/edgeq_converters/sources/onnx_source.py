"""Convert ONNX models to a float .tflite with onnx2tf, which runs in an environment of its own."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.errors import ConverterError
from edgeq_converters.graph.interpreter import Interpreter
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.normalize import reorder
from edgeq_converters.sources import onnx_environment
from edgeq_converters.sources.detect import SourceKind
from edgeq_converters.sources.onnx_process import OnnxModel, OnnxProcess
from edgeq_converters.sources.shapes import fixed_shape, require_known_inputs
from edgeq_converters.sources.types import Loaded, SourceOptions
from edgeq_converters.values import TensorInfo

Array = npt.NDArray[Any]
_Run = Callable[[Mapping[str, Array]], list[Array]]


def load(source: Path, workdir: Path, *, options: SourceOptions, announce: Callable[[str], object]) -> Loaded:
    """Return an ONNX model as a float .tflite with images channels last, as is usual in .tflite.

    Raises:
        ConverterError: EQ305 the model cannot be read or converted, EQ306 open shapes or a wrong constant,
            EQ322 the .tflite has other outputs, EQ336 onnx2tf cannot be installed.
    """
    process = OnnxProcess(source, workdir / "onnx", announce)
    announce("load with onnx2tf")
    described = process.describe()
    constants = _constants(described, options, source)
    shapes = _shapes(described, constants, options, source)
    made = process.convert(shapes, constants)
    converted = Model(data=made.path.read_bytes(), subject=str(source))
    _require_builtin(converted)
    types = {given.name: given.dtype for given in described.inputs}
    fixed = {
        given.name: np.full([size or 1 for size in given.sizes or ()], constants[given.name], given.dtype)
        for given in described.inputs
        if given.name in constants
    }
    onnx_names = dict(
        zip((t.name for t in converted.inputs), _paired(converted.inputs, list(shapes), source), strict=True)
    )
    layouts = {
        tensor.name: _axes(shapes[onnx_names[tensor.name]], tensor.shape) for tensor in converted.inputs
    }

    def run(arrays: Mapping[str, Array]) -> list[Array]:
        given = {}
        for name, array in arrays.items():
            theirs = onnx_names[name]
            # A scalar of the source is one value with an axis in the .tflite.
            given[theirs] = _back(array, layouts[name]).reshape(shapes[theirs]).astype(types[theirs])
        # An input that the .tflite does not have: nothing reads it.
        unread = {name: np.zeros(shapes[name], types[name]) for name in shapes if name not in given}
        return process.run({**unread, **given, **fixed})

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
    coverage = f"ONNX opset {described.opset}: onnx2tf {onnx_environment.VERSION} converts all "
    notes = [f"{coverage}{made.operators} operators of the model"]
    notes += [f"input `{name}` is the constant {value:g}" for name, value in constants.items()]
    notes += [
        f"input `{name}` is channels last in the .tflite: {_text(shapes[onnx_names[name]])} became "
        f"{_text(next(t.shape for t in converted.inputs if t.name == name))}"
        for name in transposed
    ]
    return Loaded(
        kind=SourceKind.ONNX,
        model=tflite,
        reference=reference,
        layouts=transposed,
        tools=(f"onnx2tf=={onnx_environment.VERSION}",),
        notes=tuple(notes),
    )


def _shapes(
    described: OnnxModel, constants: Mapping[str, float], options: SourceOptions, source: Path
) -> dict[str, tuple[int, ...]]:
    names = [given.name for given in described.inputs if given.name not in constants]
    require_known_inputs(options, names, subject=str(source))
    return {
        given.name: fixed_shape(given.name, given.sizes, options, batch_is_first=False, subject=str(source))
        for given in described.inputs
        if given.name not in constants
    }


def _constants(described: OnnxModel, options: SourceOptions, source: Path) -> dict[str, float]:
    types = {given.name: np.dtype(given.dtype) for given in described.inputs}
    for name, value in options.constants:
        if name not in types:
            problem, got = f"the model has no input `{name}`, which is to be a constant", None
        elif types[name].kind in "iu" and (
            not value.is_integer() or not np.iinfo(types[name]).min <= value <= np.iinfo(types[name]).max
        ):
            problem, got = f"input `{name}` takes {types[name]}", f"{value:g}"
        else:
            continue
        raise ConverterError(
            "EQ306",
            str(source),
            problem,
            expected=None if got else f"one of {', '.join(types)}",
            got=got,
            hint=f"--constant {next(iter(types), 'INPUT')}=VALUE" if got is None else f"--constant {name}=1",
        )
    return dict(options.constants)


def _require_builtin(model: Model) -> None:
    """Refuse operators that onnx2tf only copied: it writes a custom operation ONNX_NAME for each."""
    codes = [bytes(code.customCode or b"").decode() for code in model.parsed.operatorCodes]
    copied = sorted({code.removeprefix("ONNX_") for code in codes if code.startswith("ONNX_")})
    if copied:
        decide = "IF" in copied
        raise ConverterError(
            "EQ305",
            model.subject,
            f"onnx2tf has no .tflite operations for these operators of the model: {', '.join(copied)}",
            hint="make the input that decides an If a constant (--constant NAME=NUMBER), or export one branch"
            if decide
            else "replace them before the export, or leave what comes after them out of the model",
        )


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
    if array.ndim != len(order):  # a scalar
        return array
    return np.ascontiguousarray(array.transpose(np.argsort(order)))


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
