"""A float .tflite as a TensorFlow function of its inputs and constants, with gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.data.samples import Samples
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import edit, tflite_file
from edgeq_converters.graph.interpreter import Interpreter, run_samples
from edgeq_converters.graph.model import Model
from edgeq_converters.metrics import sqnr_db
from edgeq_converters.progress import ignore
from edgeq_converters.training.tflite.elementwise import ELEMENTWISE
from edgeq_converters.training.tflite.moving import MOVING
from edgeq_converters.training.tflite.node import Node, Operation, Untranslatable
from edgeq_converters.training.tflite.weighted import WEIGHTED

OPERATIONS: Mapping[str, Operation] = {**WEIGHTED, **ELEMENTWISE, **MOVING}
"""By kind. A kind that is missing cannot be trained through."""
FAITHFUL_DB = 70.0
"""SQNR of the translated outputs against the runtime's, above which only the rounding of float32 differs."""
_SAME_VALUE = 1e-5
_SHOWN = 6

Constants = Callable[[int, Any], Any]
"""(tensor index, the constant's value) -> the value to compute with."""
Activations = Callable[[int, Any], Any]
"""(tensor index, the value of an input or of a computed tensor) -> the value that its readers get."""


class Translation:
    """The main graph of a float model as a function; see `Node` for the form of its values."""

    def __init__(self, model: Model) -> None:
        """Read the graph.

        Raises:
            ConverterError: EQ342 operations have no translation; EQ303 the runtime does not run the model.
        """
        self.model = model
        self._parsed = model.parsed
        unknown = sorted(
            {self._kind(each) for each in model.graph.operators if self._kind(each) not in OPERATIONS}
        )
        if unknown:
            raise _untranslatable(model.subject, unknown)
        interpreter = Interpreter(model, every_tensor=True)
        interpreter.run([np.zeros(detail["shape"], detail["dtype"]) for detail in interpreter.inputs])
        self._shapes = interpreter.shapes()
        self.constants: dict[int, npt.NDArray[Any]] = {
            index: edit.constant(self._parsed, tensor)
            for index, tensor in enumerate(model.graph.tensors)
            if tflite_file.is_constant(self._parsed, tensor) and tflite_file.type_name(tensor) in edit.STORED
        }
        self.inputs = tflite_file.index_list(model.graph.inputs)
        self.outputs = tflite_file.index_list(model.graph.outputs)

    def _kind(self, operator: Any) -> str:
        return tflite_file.op_name(self._parsed, operator)

    def name(self, index: int) -> str:
        """Return the name of a tensor."""
        return tflite_file.tensor_name(self.model.graph.tensors[index])

    def __call__(
        self,
        inputs: Sequence[Any],
        *,
        constant: Constants = lambda _index, value: value,
        activation: Activations = lambda _index, value: value,
        ends: Sequence[int] | None = None,
    ) -> list[Any]:
        """Return the outputs.

        Args:
            inputs: one value per input, samples first, then the axes of the tensor.
            ends: tensor indices to return in place of the outputs.

        Raises:
            ConverterError: EQ342 a form of an operation has no translation.
        """
        import tensorflow as tf

        count = tf.shape(inputs[0])[0]
        values: dict[int, Any] = {
            index: tf.constant(each[None])
            for index, each in self.constants.items()
            if each.dtype != np.float32
        }
        for index, each in self.constants.items():
            if each.dtype == np.float32:
                values[index] = constant(index, tf.constant(each))[None]
        for index, value in zip(self.inputs, inputs, strict=True):
            values[index] = activation(index, value)
        for operator in self.model.graph.operators:
            self._run(operator, values, activation, count)
        made = [values[index] for index in (self.outputs if ends is None else ends)]
        # What depends on constants only is the same for every sample.
        return [tf.repeat(value, count, axis=0) if value.shape[0] == 1 else value for value in made]

    def _run(self, operator: Any, values: dict[int, Any], activation: Activations, count: Any) -> None:
        sources = tflite_file.index_list(operator.inputs)
        outputs = tflite_file.index_list(operator.outputs)
        types = [tflite_file.type_name(self.model.graph.tensors[index]) for index in outputs]
        node = Node(
            kind=self._kind(operator),
            options=operator.builtinOptions,
            shapes=tuple(self._shapes[index] if index >= 0 else () for index in sources),
            made=tuple(self._shapes[index] for index in outputs),
            constants=tuple(self.constants.get(index) for index in sources),
            dtypes=tuple(kind.lower() for kind in types),
            count=count,
        )
        try:
            made = OPERATIONS[node.kind](node, *(None if i < 0 else values[i] for i in sources))
        except Untranslatable as error:
            raise _untranslatable(self.model.subject, [str(error)]) from error
        made = list(made) if isinstance(made, (list, tuple)) else [made]
        for index, value, shape in zip(outputs, made, node.made, strict=True):
            if tuple(value.shape[1:]) != shape:
                raise _unfaithful(
                    self.model.subject,
                    f"{node.kind} {self.name(index)!r} has the shape {tuple(value.shape[1:])}, not {shape}",
                )
            values[index] = activation(index, value)


def as_units(arrays: Sequence[Any], samples: Samples) -> list[npt.NDArray[Any]]:
    """Return samples as values of a translation's inputs: one unit is what the model takes in one run.

    Rows that miss in the last batch of a model with a larger batch are copies of the last one.
    """
    size = samples.batch
    units = []
    for array, tensor, whole in zip(arrays, samples.inputs, samples.whole, strict=True):
        if not whole and size > 1 and len(array) % size:
            missing = size - len(array) % size
            array = np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
        units.append(array.reshape(-1, *tensor.shape))
    return units


def require_faithful(translation: Translation, original: Model, samples: Samples) -> None:
    """Check on some samples that the translation computes what the runtime does with the original model.

    Args:
        original: with the same inputs and outputs.

    Raises:
        ConverterError: EQ309 the model gives NaN or infinity; EQ343 an output differs by more than the
            rounding of float32.
    """
    import tensorflow as tf

    references = run_samples(original, samples, advance=ignore)
    made = translation([tf.constant(each) for each in as_units(samples.arrays, samples)])
    for info, reference, values in zip(original.outputs, references, made, strict=True):
        own = np.asarray(values, np.float64).reshape(-1)[: reference.size].reshape(reference.shape)
        exact = np.asarray(reference, np.float64)
        require_finite(exact, original.subject)
        if np.abs(own - exact).max(initial=0.0) <= _SAME_VALUE * np.abs(exact).max(initial=0.0):
            continue
        reached = sqnr_db([own], [exact])
        if not reached >= FAITHFUL_DB:
            raise _unfaithful(
                original.subject, f"output `{info.name}` has {reached:.1f} dB there on {len(samples)} samples"
            )


def require_finite(values: npt.NDArray[Any], subject: str) -> None:
    """Check that a float model's outputs can be trained towards.

    Raises:
        ConverterError: EQ309 some are NaN or infinite.
    """
    if not np.isfinite(values).all():
        raise ConverterError(
            "EQ309",
            subject,
            "the float model gives NaN or infinite values on the training data",
            hint="check the model on the training data in float first",
        )


def _untranslatable(subject: str, unknown: Sequence[str]) -> ConverterError:
    more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
    return ConverterError(
        "EQ342",
        subject,
        f"tuning cannot train through {', '.join(unknown[:_SHOWN])}{more}",
        hint="a conversion fits the integer weights to the float model without training; or tune the Keras"
        " source",
    )


def _unfaithful(subject: str, problem: str) -> ConverterError:
    return ConverterError(
        "EQ343",
        subject,
        f"the function to train does not compute what the model does: {problem}",
        hint="please report the model; a conversion does not need this function",
    )
