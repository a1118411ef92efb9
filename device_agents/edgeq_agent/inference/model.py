"""Load a TFLite model and run it, one sample at a time; imported only in the model's process."""

from __future__ import annotations

import os
import time
from typing import Any, NamedTuple

from edgeq_agent.errors import BAD_REQUEST, UNHEALTHY, UNSUPPORTED, AgentError
from edgeq_agent.inference import edgetpu, runtime_modules
from edgeq_agent.inference import state as states
from edgeq_agent.inference.state import State


class Tensor(NamedTuple):
    """An input or output tensor.

    Attributes:
        position: its index in the interpreter.
        shape: without the batch axis.
        dtype: a numpy dtype.
        scale, zero_point: real = (integer - zero_point) * scale; scale 0.0 means not quantized.
        slices: in place of them, where the slices of an output have scales of their own: arrays of scales
            and zero points that broadcast over the shape with the batch axis.
    """

    name: str
    position: int
    shape: list[int]
    dtype: Any
    scale: float
    zero_point: int
    slices: Any = None

    @property
    def quantized(self) -> bool:
        """Whether its integers stand for real values."""
        return (self.scale != 0.0 or self.slices is not None) and self.dtype.kind in "iu"


class Model(NamedTuple):
    """A loaded model, with tensors for one sample at a time.

    Attributes:
        kernels: xnnpack, builtin, edgetpu or unknown.
        init_ns: time to load the model and allocate its tensors.
        state: what it keeps from one inference to the next; `fresh` resets it.
        origin: the arguments of `load`.
    """

    interpreter: Any
    inputs: list[Tensor]
    outputs: list[Tensor]
    kernels: str
    init_ns: int
    state: State
    origin: tuple[str, str, int]

    @property
    def classes(self) -> int:
        """How many values the first output has."""
        size = 1
        for length in self.outputs[0].shape:
            size *= length
        return size


def load(module: str, path: str, threads: int = 1, cpu_path: str | None = None) -> Model:
    """Load a model file and allocate it for one sample.

    Args:
        cpu_path: the model to load instead of one that was compiled for an Edge TPU that is not here.

    Raises:
        AgentError: EQ504, the runtime refuses it; EQ503, its batch size is fixed and not 1; EQ560, it was
            compiled for an Edge TPU that is not here; EQ504, its file is damaged.
    """
    create = runtime_modules.interpreter_class(module)
    compiled = edgetpu.is_compiled(path)
    began = time.perf_counter_ns()
    more = {}
    if compiled:
        try:
            more = {"experimental_delegates": [edgetpu.load_delegate(module)]}
        except AgentError:
            if cpu_path is None:
                raise
            path, compiled = cpu_path, False
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
    return Model(interpreter, inputs, outputs, kernels, init_ns, states.read(path), (module, path, threads))


def _one_sample(interpreter: Any) -> None:
    try:
        for detail in interpreter.get_input_details():
            interpreter.resize_tensor_input(
                detail["index"], [1] + [int(size) for size in detail["shape"][1:]]
            )
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise AgentError(
            UNSUPPORTED, "model", "its batch size is fixed and cannot become 1: " + _line(error)
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
        _slices(detail),
    )


def _slices(detail: Any) -> Any:
    """Return (scales, zero points) of a tensor that is quantized along an axis; None for any other."""
    import numpy as np

    parameters = detail.get("quantization_parameters") or {}
    scales = parameters.get("scales")
    if scales is None or len(scales) < 2:
        return None
    shape = [1] * len(detail["shape"])
    shape[int(parameters["quantized_dimension"])] = len(scales)
    zero_points = np.asarray(parameters["zero_points"])
    return np.reshape(scales, shape).astype(np.float64), np.reshape(zero_points, shape).astype(np.float64)


def _kernels(interpreter: Any) -> str:
    """Return which kernels run: only the Edge TPU's delegate is loaded explicitly, so any other is XNNPACK.

    `_get_ops_details` is private. Where a runtime lacks it, the parent process reads the runtime's log line.
    """
    try:
        names = [op["op_name"] for op in interpreter._get_ops_details()]  # noqa: SLF001
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError):
        return "unknown"
    return "xnnpack" if "DELEGATE" in names else "builtin"


def delegated_outputs(loaded: Model) -> list[bool] | None:
    """Return which outputs a delegate computes, in their order; None where the runtime does not say.

    Of a model with several independent parts, this is which kernels run each part.
    """
    try:
        ops = loaded.interpreter._get_ops_details()  # noqa: SLF001
        by_delegate = {int(index) for op in ops if op["op_name"] == "DELEGATE" for index in op["outputs"]}
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError):
        return None
    return [tensor.position in by_delegate for tensor in loaded.outputs]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def arrays(loaded: Any, prefix: str, tensors: list[Tensor], subject: str) -> list[Any]:
    """Return the arrays `<prefix>_0`, `<prefix>_1`, ... of an .npz, one for each tensor; samples first.

    Raises:
        AgentError: EQ512, an array is missing, does not fit its tensor, or the numbers of samples differ.
    """
    checked: list[Any] = []
    for number, tensor in enumerate(tensors):
        name = f"{prefix}_{number}"
        array = loaded.get(name)
        if array is None:
            raise AgentError(BAD_REQUEST, subject, expected="an array " + name, got=", ".join(sorted(loaded)))
        expected = "(samples, {})".format(", ".join(map(str, tensor.shape)))
        if array.ndim == 0 or list(array.shape[1:]) != tensor.shape or array.dtype.kind not in "biuf":
            got = f"{array.shape} of {array.dtype}"
            raise AgentError(BAD_REQUEST, f"{subject} {name}", expected=expected, got=got)
        if len(array) == 0 or len(array) != len(checked[0] if checked else array):
            problem = f"it has no samples, or not as many as {prefix}_0"
            raise AgentError(BAD_REQUEST, f"{subject} {name}", problem)
        checked.append(array)
    return checked


def to_input(array: Any, tensor: Tensor) -> Any:
    """Return samples in the tensor's dtype: unchanged if they have it, else quantized or cast."""
    import numpy as np

    if array.dtype == tensor.dtype:
        return array
    if not tensor.quantized:
        return array.astype(tensor.dtype)
    limits = np.iinfo(tensor.dtype)
    steps = np.rint(array.astype(np.float64) / tensor.scale) + tensor.zero_point
    return np.clip(steps, limits.min, limits.max).astype(tensor.dtype)


def to_real(array: Any, tensor: Tensor) -> Any:
    """Return the real values (float64) of a tensor's values."""
    import numpy as np

    values = array.astype(np.float64)
    if tensor.slices is not None and tensor.quantized:
        scales, zero_points = tensor.slices
        return (values - zero_points) * scales
    return (values - tensor.zero_point) * tensor.scale if tensor.quantized else values


def fresh(model: Model) -> Model:
    """Return the model in the state that it has after loading, so that earlier inferences do not matter.

    It is the same model, reset, or where this runtime cannot reset it, the model loaded again.

    Raises:
        AgentError: as `load`.
    """
    if not model.state.kept or states.reset(model.interpreter, model.state):
        return model
    return load(*model.origin)


def invoke(model: Model, samples: list[Any], row: int) -> int:
    """Run sample `row` and return the time of the invocation alone, in nanoseconds.

    Args:
        samples: one array for each input, in the input's dtype, samples first.

    Raises:
        AgentError: EQ504, the runtime fails on this sample.
    """
    interpreter = model.interpreter
    for tensor, array in zip(model.inputs, samples):
        interpreter.set_tensor(tensor.position, array[row : row + 1])
    began = time.perf_counter_ns()
    try:
        interpreter.invoke()
    except (ValueError, RuntimeError) as error:
        raise AgentError(UNHEALTHY, "model", "the runtime failed: " + _line(error)) from error
    return time.perf_counter_ns() - began


def output(model: Model, number: int = 0) -> Any:
    """Return a copy of one output of the last invocation, without the batch axis."""
    return model.interpreter.get_tensor(model.outputs[number].position)[0]


def machine() -> str:
    """Return the operating system's name for this processor, such as `aarch64`."""
    return os.uname().machine
