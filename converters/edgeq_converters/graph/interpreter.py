"""Run a .tflite on samples with LiteRT."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.data.samples import Samples, to_model
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import carried_states, tflite_file
from edgeq_converters.graph import state as states
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.rewrite.custom_operations import UNKNOWN
from edgeq_converters.graph.state import State
from edgeq_converters.progress import Advance
from edgeq_converters.values import CarriedState, TensorInfo

Array = npt.NDArray[Any]


class KernelSet(Enum):
    """The kernels that LiteRT chooses from."""

    DEFAULT = "AUTO"
    PLAIN = "BUILTIN_WITHOUT_DEFAULT_DELEGATES"
    REFERENCE = "BUILTIN_REF"


class Interpreter:
    """LiteRT's interpreter of one model, with its tensors allocated.

    Attributes:
        inputs: LiteRT's details of the inputs: `index`, `shape`, `dtype`, `quantization`.
        outputs: of the outputs.
    """

    def __init__(
        self,
        model: Model,
        *,
        every_tensor: bool = False,
        threads: int = 1,
        state: State | None = None,
        kernels: KernelSet = KernelSet.DEFAULT,
    ) -> None:
        """Load a model.

        Args:
            every_tensor: keep intermediate tensors readable after a run. Delegates would hide them, so that
                the plain kernels run instead.
            kernels: to choose from; `every_tensor` makes the default ones plain.
            state: of the model, for a caller that knows it: the model need not be parsed then.

        Raises:
            ConverterError: EQ303 LiteRT refuses the file, EQ320 the model is compiled for the Edge TPU,
                EQ323 it has operations that LiteRT does not.
        """
        self._subject = model.subject
        self._model, self._options = model, (every_tensor, threads)
        self._state = state
        self._kernels = KernelSet.PLAIN if every_tensor and kernels is KernelSet.DEFAULT else kernels
        self._load()
        self.inputs: Sequence[Mapping[str, Any]] = self._runtime.get_input_details()
        self.outputs: Sequence[Mapping[str, Any]] = self._runtime.get_output_details()

    def _load(self) -> None:
        from ai_edge_litert.interpreter import Interpreter as LiteRT
        from ai_edge_litert.interpreter import OpResolverType

        model, (every_tensor, threads) = self._model, self._options
        resolver = OpResolverType[self._kernels.value]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # it advises against preserving all tensors
                self._runtime = LiteRT(
                    model_content=model.data,
                    num_threads=threads,
                    experimental_preserve_all_tensors=every_tensor,
                    experimental_op_resolver_type=resolver,
                )
        except (ValueError, RuntimeError) as error:
            problem = str(error)
            raise _unknown_ops(model.subject, problem) or tflite_file.damaged(
                model.subject, problem
            ) from error
        try:
            self._runtime.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            problem = str(error)
            raise _unknown_ops(model.subject, problem) or _not_prepared(model.subject, problem) from error

    def is_delegated(self) -> bool:
        """Return whether a delegate, which is XNNPACK by default, runs any operation."""
        return any(each["op_name"] == "DELEGATE" for each in self._runtime._get_ops_details())  # noqa: SLF001 # nothing public says it

    def reset(self) -> None:
        """Forget what earlier runs left in the model's variables: the next run begins a sequence."""
        if self._state is None:
            self._state = states.read(self._model)
        if self._state.kept and not states.reset(self._runtime, self._state):
            self._load()

    def run(self, rows: Sequence[Array]) -> None:
        """Run one batch.

        Args:
            rows: one array per input, in the input's shape and type.

        Raises:
            ConverterError: EQ303 the model does not run.
        """
        try:
            for detail, row in zip(self.inputs, rows, strict=True):
                self._runtime.set_tensor(detail["index"], np.asarray(row, order="C"))
            self._runtime.invoke()
        except (ValueError, RuntimeError) as error:
            short = " ".join(str(error).split())[:160]
            raise ConverterError("EQ303", self._subject, f"the model does not run ({short})") from error

    def states(self) -> tuple[CarriedState, ...]:
        """Return the states that the model's file names."""
        return carried_states.read(self._model)

    def fed_back(self, state: CarriedState) -> Array:
        """Return a state after the last run as its input takes it."""
        taken, given = self.outputs[state.output], self.inputs[state.input]
        values = self.tensor(taken["index"])
        kinds = taken["dtype"] == given["dtype"]
        if kinds and taken["quantization"] == given["quantization"]:
            return values
        scale, zero_point = taken["quantization"]
        real = (values.astype(np.float64) - zero_point) * scale if scale else values.astype(np.float64)
        scale, zero_point = given["quantization"]
        return to_model(
            real,
            TensorInfo(
                name=str(given["name"]),
                shape=tuple(int(size) for size in given["shape"]),
                dtype=np.dtype(given["dtype"]).name,
                scale=scale or None,
                zero_point=zero_point,
            ),
        )

    def repeat(self) -> None:
        """Run the last batch again, without copying or checking anything: for measurements of time."""
        self._runtime.invoke()

    def results(self) -> list[Array]:
        """Return copies of the outputs of the last run."""
        return [self.tensor(detail["index"]) for detail in self.outputs]

    def shapes(self) -> dict[int, tuple[int, ...]]:
        """Return the shape of each tensor of the main graph; after a run, also where it depends on values."""
        return {
            int(each["index"]): tuple(int(size) for size in each["shape"])
            for each in self._runtime.get_tensor_details()
        }

    def tensor(self, index: int) -> Array:
        """Return a copy of a tensor after the last run.

        Raises:
            ValueError: the tensor holds no values.
        """
        values: Array = self._runtime.get_tensor(index)
        return values


def _not_prepared(subject: str, problem: str) -> ConverterError:
    # The runtime read the whole file, so it is complete: an operation does not take its inputs.
    short = " ".join(problem.split())[:160]
    return ConverterError(
        "EQ303",
        subject,
        f"the runtime does not accept an operation of the model ({short})",
        hint="convert the model's source again; for a copied file, compare its SHA-256 with the original's",
    )


def _unknown_ops(subject: str, problem: str) -> ConverterError | None:
    """Return the error for a model with operations that LiteRT does not have; None for any other problem."""
    custom = re.search(r"[Uu]nresolved custom op: (\S+)", problem)
    if custom:
        name = custom[1].rstrip(".")
        if name == tflite_file.EDGETPU_OP:
            return tflite_file.compiled(subject)
        return ConverterError(
            "EQ323",
            subject,
            f"the runtime does not have the custom operation {name}",
            expected="operations of .tflite itself",
            got=name,
            hint=_help_with(name),
        )
    if "Select TensorFlow op" in problem or "flex delegate" in problem.lower():
        names = ", ".join(sorted(set(re.findall(r"\bFlex(\w+)", problem)) - {"Delegate"}))
        return ConverterError(
            "EQ323",
            subject,
            f"the model needs TensorFlow's own operations{f' ({names})' if names else ''}, "
            "which no device runtime has",
            expected="operations of .tflite itself",
            hint="replace them in the model, and convert it again without SELECT_TF_OPS",
        )
    return None


def _help_with(custom: str) -> str:
    if custom in UNKNOWN:
        return f"only {UNKNOWN[custom]} computes it: convert a model that ends before this operation"
    return "replace the operation in the model, and convert it again without allow_custom_ops"


def batches(samples: Samples, inputs: Sequence[TensorInfo]) -> Iterator[tuple[list[Array], int]]:
    """Yield (one array per input, how many of its samples are real) for each batch of the model's size.

    The arrays have the inputs' types. The last batch is filled up with its last sample.
    """
    size, whole = samples.batch, samples.whole
    for start in range(0, len(samples), size):
        rows = [array[start : start + size] for array in samples.arrays]
        count = len(rows[0])
        if count < size:
            rows = [np.concatenate([row, np.repeat(row[-1:], size - count, axis=0)]) for row in rows]
        rows = [row[0] if fills else row for row, fills in zip(rows, whole, strict=True)]
        yield [to_model(row, tensor) for row, tensor in zip(rows, inputs, strict=True)], count


def run_batches(interpreter: Interpreter, samples: Samples, inputs: Sequence[TensorInfo]) -> Iterator[int]:
    """Run the batches of samples one after another; yield how many samples are real after each.

    The state of the model is reset before each batch, or where a sequence begins; one that it gives as an
    output goes on from there to its input.

    Raises:
        ConverterError: EQ303 the model does not run.
    """
    for _, count in fed_batches(interpreter, samples, inputs):
        yield count


def fed_batches(
    interpreter: Interpreter, samples: Samples, inputs: Sequence[TensorInfo]
) -> Iterator[tuple[list[Array], int]]:
    """Run the batches as `run_batches` does; yield (what each was fed, how many of its samples are real)."""
    states = interpreter.states() if samples.carries else ()
    for number, (rows, count) in enumerate(batches(samples, inputs)):
        if samples.begins_at(number):
            interpreter.reset()
        else:
            for state in states:
                rows[state.input] = interpreter.fed_back(state)
        interpreter.run(rows)
        yield rows, count


def with_recorded_states(model: Model, samples: Samples) -> Samples:
    """Return the samples with the states that a model passes on in the arrays of its state inputs.

    Each sample then has all that it depends on, so that samples can also be taken one by one.

    Raises:
        ConverterError: EQ303 the model does not run.
    """
    if not samples.carries:
        return samples
    interpreter = Interpreter(model)
    arrays = list(samples.arrays)
    for place in samples.states:
        arrays[place] = np.empty(arrays[place].shape, np.dtype(model.inputs[place].dtype))
    for number, (rows, _) in enumerate(fed_batches(interpreter, samples, model.inputs)):
        for place in samples.states:
            arrays[place][number] = rows[place].reshape(arrays[place].shape[1:])
    return replace(samples, arrays=tuple(arrays))


def samples_first(values: Array, *, size: int, count: int) -> Array:
    """Return a tensor's values after one run as (samples, *shape of a sample).

    A tensor that does not start with the batch (a transposed one, a scalar) counts as one sample. There,
    values that fill up the last batch count too, because they cannot be separated.

    Args:
        size: samples of a batch.
        count: how many of them are real.
    """
    if values.ndim == 0 or len(values) != size:
        return values[None]
    return values[:count]


def sample_shape(shape: Sequence[int], *, size: int) -> tuple[int, ...]:
    """Return the shape of one sample of a tensor, by the rule of `samples_first`."""
    return tuple(shape[1:]) if shape and max(shape[0], 1) == size else tuple(shape)


def run_samples(model: Model, samples: Samples, *, advance: Advance) -> tuple[Array, ...]:
    """Return the model's outputs in its own types, samples first (see `samples_first`).

    Args:
        advance: called with the number of samples of each batch.

    Raises:
        ConverterError: EQ303 the model does not run.
    """
    interpreter = Interpreter(model)
    gathered: list[list[Array]] = [[] for _ in interpreter.outputs]
    for count in run_batches(interpreter, samples, model.inputs):
        for into, values in zip(gathered, interpreter.results(), strict=True):
            into.append(samples_first(values, size=samples.batch, count=count))
        advance(count)
    return tuple(np.concatenate(parts) for parts in gathered)


def run_once(model: Model) -> None:
    """Run the model on zeros, to prove that it loads and runs.

    Raises:
        ConverterError: EQ303 it does not.
    """
    interpreter = Interpreter(model)
    interpreter.run([np.zeros(detail["shape"], detail["dtype"]) for detail in interpreter.inputs])
