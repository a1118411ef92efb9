"""A loaded model: whichever runtime is there, samples in, real values out (child process only)."""

from __future__ import annotations

import os
import time
from typing import Any, NamedTuple

from edgeq_agent.errors import BAD_REQUEST, UNHEALTHY, UNSUPPORTED, AgentError
from edgeq_agent.inference import edgetpu, runtime_modules


class Tensor(NamedTuple):
    """An input or output: shape without the batch axis, numpy dtype, meaning of its integers."""

    name: str
    position: int
    shape: list[int]
    dtype: Any
    scale: float
    zero_point: int

    @property
    def quantized(self) -> bool:
        return self.scale != 0.0 and self.dtype.kind in "iu"


class Model(NamedTuple):
    """A model whose tensors are allocated for one sample at a time."""

    interpreter: Any
    inputs: list[Tensor]
    outputs: list[Tensor]
    kernels: str
    init_ns: int

    @property
    def classes(self) -> int:
        """How many values the first output has."""
        size = 1
        for length in self.outputs[0].shape:
            size *= length
        return size


def load(module: str, path: str, threads: int = 1) -> Model:
    """Load a model file and allocate it for one sample.

    Raises:
        AgentError: EQ504, the runtime refuses it; EQ503, it cannot take one sample at a time; EQ560, it was
            compiled for an Edge TPU that is not here.
    """
    create = runtime_modules.interpreter_class(module)
    compiled = edgetpu.is_compiled(path)
    began = time.perf_counter_ns()
    more = {"experimental_delegates": [edgetpu.load_delegate(module)]} if compiled else {}
    try:
        interpreter = create(model_path=path, num_threads=threads, **more)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise AgentError(UNHEALTHY, "model", "the runtime refuses it: " + _line(error)) from error
    init_ns = time.perf_counter_ns() - began
    if any(
        int(detail["shape"][0]) != 1 for detail in interpreter.get_input_details() if len(detail["shape"])
    ):
        _one_sample(interpreter)
    inputs = [_tensor(detail) for detail in interpreter.get_input_details()]
    outputs = [_tensor(detail) for detail in interpreter.get_output_details()]
    kernels = edgetpu.KERNELS if compiled else _kernels(interpreter)
    return Model(interpreter, inputs, outputs, kernels, init_ns)


def _one_sample(interpreter: Any) -> None:
    try:
        for detail in interpreter.get_input_details():
            interpreter.resize_tensor_input(
                detail["index"], [1] + [int(size) for size in detail["shape"][1:]]
            )
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise AgentError(
            UNSUPPORTED, "model", "its batch is fixed and cannot become one sample: " + _line(error)
        ) from error


def _tensor(detail: Any) -> Tensor:
    import numpy as np

    scale, zero_point = detail["quantization"]
    return Tensor(
        str(detail["name"]),
        int(detail["index"]),
        [int(size) for size in detail["shape"]][1:],
        np.dtype(detail["dtype"]),
        float(scale),
        int(zero_point),
    )


def _kernels(interpreter: Any) -> str:
    """Return whose kernels run: but for the Edge TPU no delegate is ever asked for, so one is XNNPACK.

    `_get_ops_details` is private; where a runtime lacks it, the parent reads the runtime's own log line.
    """
    try:
        names = [op["op_name"] for op in interpreter._get_ops_details()]
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError):
        return "unknown"
    return "xnnpack" if "DELEGATE" in names else "builtin"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def open_npz(path: str, subject: str, limit_bytes: int = 2 << 30) -> Any:
    """Return the arrays of an .npz file, by name.

    Raises:
        AgentError: EQ512, it is none, holds pickled objects, or unpacks to more than `limit_bytes`.
    """
    import zipfile

    import numpy as np

    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(member.file_size for member in archive.infolist())
        if total > limit_bytes:
            raise AgentError(BAD_REQUEST, subject, f"unpacks to {total} bytes")
        with np.load(path, allow_pickle=False) as loaded:
            return {name: loaded[name] for name in loaded.files}
    except (zipfile.BadZipFile, ValueError, EOFError, KeyError, NotImplementedError) as error:
        raise AgentError(BAD_REQUEST, subject, "no .npz of plain arrays: " + _line(error)) from error


def arrays(loaded: Any, prefix: str, tensors: list[Tensor], subject: str) -> list[Any]:
    """Return `<prefix>_0`.. of an .npz, checked against the model's tensors; samples first.

    Raises:
        AgentError: EQ512, one is missing, has another shape, no samples, or another number of samples.
    """
    found: list[Any] = []
    for number, tensor in enumerate(tensors):
        name = f"{prefix}_{number}"
        array = loaded.get(name)
        if array is None:
            raise AgentError(BAD_REQUEST, subject, expected="an array " + name, got=", ".join(sorted(loaded)))
        expected = "(samples, {})".format(", ".join(map(str, tensor.shape)))
        if array.ndim == 0 or list(array.shape[1:]) != tensor.shape or array.dtype.kind not in "biuf":
            got = f"{array.shape} of {array.dtype}"
            raise AgentError(BAD_REQUEST, f"{subject} {name}", expected=expected, got=got)
        if len(array) == 0 or len(array) != len(found[0] if found else array):
            raise AgentError(BAD_REQUEST, f"{subject} {name}", "no samples, or not as many as input_0")
        found.append(array)
    return found


def to_input(array: Any, tensor: Tensor) -> Any:
    """Return samples as the model takes them: its own dtype as it is, real values quantized, else cast."""
    import numpy as np

    if array.dtype == tensor.dtype:
        return array
    if not tensor.quantized:
        return array.astype(tensor.dtype)
    limits = np.iinfo(tensor.dtype)
    steps = np.rint(array.astype(np.float64) / tensor.scale) + tensor.zero_point
    return np.clip(steps, limits.min, limits.max).astype(tensor.dtype)


def to_real(array: Any, tensor: Tensor) -> Any:
    """Return the real values (float64) that a tensor's values stand for."""
    import numpy as np

    values = array.astype(np.float64)
    return (values - tensor.zero_point) * tensor.scale if tensor.quantized else values


def invoke(model: Model, samples: list[Any], row: int) -> int:
    """Run sample `row` (arrays in the model's own dtypes); return the nanoseconds of the invocation alone.

    Raises:
        AgentError: EQ504, the runtime gives up on this sample.
    """
    interpreter = model.interpreter
    for tensor, array in zip(model.inputs, samples):
        interpreter.set_tensor(tensor.position, array[row : row + 1])
    began = time.perf_counter_ns()
    try:
        interpreter.invoke()
    except (ValueError, RuntimeError) as error:
        raise AgentError(UNHEALTHY, "model", "the runtime gives up: " + _line(error)) from error
    return time.perf_counter_ns() - began


def output(model: Model, number: int = 0) -> Any:
    """Return a copy of an output of the last invocation, without the batch axis."""
    return model.interpreter.get_tensor(model.outputs[number].position)[0]


def machine() -> str:
    """Return the kernel's name for this processor."""
    return os.uname().machine
