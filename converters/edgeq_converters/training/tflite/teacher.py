"""The float function as the teacher: what a student's outputs are compared with, in units of their power."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.data.samples import Samples
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import tflite_file
from edgeq_converters.training.common import loop
from edgeq_converters.training.common.training_data import LabelledData
from edgeq_converters.training.qat.scoring import inverse_powers
from edgeq_converters.training.tflite.translation import Translation, require_finite

Array = npt.NDArray[Any]
_AT_A_TIME = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class _Watched:
    """A tensor whose distance counts.

    Attributes:
        centered: whether its mean over the last axis does not matter, as before a softmax.
    """

    index: int
    centered: bool = False


def as_written(forward: loop.Forward) -> loop.Forward:
    """Return a function that TensorFlow traces as it is: it has no conditions on tensors to rewrite."""
    import tensorflow as tf

    traced: loop.Forward = tf.autograph.experimental.do_not_convert(lambda inputs: forward(inputs))
    return traced


class Teacher:
    """The translated function of a float model, whose outputs are divided by their size, slice by slice.

    Beside each softmax output stand the scores before it: where the probabilities are almost 0 or 1, only the
    scores show how far a student is.

    Args:
        data: samples that give the sizes.

    Raises:
        ConverterError: EQ342 the model takes several samples at a time, and an output does not hold them;
            EQ309 an output is NaN or infinite.
    """

    def __init__(self, translation: Translation, data: LabelledData) -> None:
        self.translation = translation
        samples = Samples(inputs=translation.model.inputs, arrays=data.arrays)
        self._shapes = [tensor.shape for tensor in samples.inputs]
        self._batch = samples.batch
        self._watched = _watched(translation)
        self._factors: list[Any] = [1.0] * len(self._watched)
        raw = self._values(data)
        if any(len(values) != len(data) for values in raw):
            raise ConverterError(
                "EQ342",
                translation.model.subject,
                "the model takes several samples at a time, and an output is not one row for each",
                hint="convert the source with a batch of 1",
            )
        self._factors = [np.sqrt(inverse_powers(values)).astype(np.float32) for values in raw]

    def targets(self, data: LabelledData) -> list[Array]:
        """Return the teacher's own outputs in these units, samples first."""
        return self._values(data)

    def _values(self, data: LabelledData) -> list[Array]:
        made = loop.outputs_of(loop.compiled(as_written(self.forward)), data, _AT_A_TIME)
        for values in made:
            require_finite(values, self.translation.model.subject)
        return made

    def forward(self, inputs: list[Any], **hooks: Callable[[int, Any], Any]) -> list[Any]:
        """Return the watched tensors of a batch, samples first, in these units.

        Args:
            inputs: samples first.
            hooks: `constant` and `activation` of `Translation.__call__`.
        """
        import tensorflow as tf

        count = tf.shape(inputs[0])[0]
        units = []
        for value, shape in zip(inputs, self._shapes, strict=True):
            if self._batch > 1:
                value = tf.concat([value, tf.repeat(value[-1:], -count % self._batch, axis=0)], axis=0)
            units.append(tf.reshape(value, (-1, *shape)))
        ends = [each.index for each in self._watched]
        made = self.translation(units, ends=ends, **hooks)
        return [
            self._samples_first(value, each, count) * factor
            for value, each, factor in zip(made, self._watched, self._factors, strict=True)
        ]

    def _samples_first(self, value: Any, watched: _Watched, count: Any) -> Any:
        import tensorflow as tf

        shape = tuple(value.shape[1:])
        if shape and shape[0] == self._batch:
            value = tf.reshape(value, (-1, *shape[1:]))[:count]
        if watched.centered:
            value = value - tf.reduce_mean(value, axis=-1, keepdims=True)
        return value


def _watched(translation: Translation) -> list[_Watched]:
    graph = translation.model.graph
    producers = {int(index): operator for operator in graph.operators for index in operator.outputs}
    watched = []
    for output in translation.outputs:
        if tflite_file.type_name(graph.tensors[output]) != "FLOAT32":
            continue  # class numbers have no gradient
        watched.append(_Watched(index=output))
        operator = producers.get(output)
        if operator is not None and tflite_file.op_name(translation.model.parsed, operator) == "SOFTMAX":
            watched.append(_Watched(index=int(operator.inputs[0]), centered=True))
    return watched
