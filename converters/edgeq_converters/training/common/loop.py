"""The training loop of pruning and QAT; the same seed gives the same weights, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.errors import ConverterError
from edgeq_converters.training.common.training_data import LabelledData

Forward = Callable[[list[Any]], list[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Length and learning rate of a training; the rate decays to zero along a cosine."""

    epochs: int
    rate: float
    batch: int = 32
    seed: int = 0

    def steps(self, count: int) -> int:
        """Return the number of steps for `count` samples."""
        return self.epochs * max(1, -(-count // self.batch))


_FEWEST, _MOST = 2, 60


def epochs_for(samples: int, *, batch: int, steps: int, requested: int | None) -> int:
    """Return the requested number of epochs, or the number that gives about `steps` steps."""
    if requested is not None:
        return requested
    return min(_MOST, max(_FEWEST, -(-steps * batch // max(samples, 1))))


def reproducible(seed: int) -> None:
    """Make Keras and TensorFlow in this process deterministic for the seed."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def train(
    forward: Forward,
    variables: Sequence[Any],
    data: LabelledData,
    targets: Sequence[npt.NDArray[Any]],
    *,
    loss: Callable[[list[Any], list[Any]], Any],
    schedule: Schedule,
    subject: str,
    advance: Callable[[int], None],
    before_step: Callable[[int], None] = lambda _step: None,
    after_update: Callable[[], None] = lambda: None,
) -> None:
    """Train the variables in place with Adam.

    Args:
        forward: maps a batch of inputs to outputs, as Keras tensors.
        targets: second argument of the loss, samples first.
        before_step: called with the step's number before each step.
        after_update: runs inside the compiled step, after the update of the variables.

    Raises:
        ConverterError: EQ317 when the loss is no longer finite.
    """
    import keras
    import tensorflow as tf

    total = schedule.steps(len(data))
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(schedule.rate, total))
    optimizer.build(list(variables))

    def update(inputs: list[Any], expected: list[Any]) -> Any:
        with tf.GradientTape() as tape:
            value = loss(forward(inputs), expected)
        gradients = tape.gradient(value, [variable.value for variable in variables])
        pairs = [
            (gradient, variable)
            for gradient, variable in zip(gradients, variables, strict=True)
            if gradient is not None
        ]
        optimizer.apply_gradients(pairs)
        after_update()
        return value

    compiled = tf.function(update, reduce_retracing=True)
    random = np.random.default_rng(schedule.seed)
    size = min(schedule.batch, len(data))
    for step, rows in enumerate(_batches(random, len(data), size, total)):
        before_step(step)
        batch = [tf.constant(array[rows]) for array in data.arrays]
        value = float(compiled(batch, [tf.constant(target[rows]) for target in targets]))
        if not np.isfinite(value):
            raise ConverterError(
                "EQ317",
                subject,
                f"training diverged: the loss is {value} at step {step + 1} of {total}",
                hint="scale the data as for the model's original training",
            )
        advance(1)


def _batches(random: np.random.Generator, count: int, size: int, total: int) -> Any:
    # Every batch is full, so that the step is compiled once; the rest of an epoch starts the next one's.
    waiting = np.empty(0, np.int64)
    for _ in range(total):
        while len(waiting) < size:
            waiting = np.concatenate([waiting, random.permutation(count)])
        yield waiting[:size]
        waiting = waiting[size:]


def predict(model: Any, data: LabelledData, batch: int = 256) -> list[npt.NDArray[Any]]:
    """Return the model's outputs in inference mode, samples first."""
    return outputs_of(compiled(lambda inputs: _called(model, inputs)), data, batch)


def compiled(forward: Forward) -> Forward:
    """Return `forward` as a TensorFlow graph, which is faster when called often."""
    import tensorflow as tf

    graph: Forward = tf.function(forward, reduce_retracing=True)
    return graph


def outputs_of(forward: Forward, data: LabelledData, batch: int = 256) -> list[npt.NDArray[Any]]:
    """Return the outputs of `forward` on the data, samples first."""
    import tensorflow as tf

    parts: list[list[npt.NDArray[Any]]] = []
    for start in range(0, len(data), batch):
        rows = [tf.constant(array[start : start + batch]) for array in data.arrays]
        parts.append([np.asarray(out) for out in forward(rows)])
    return [np.concatenate(columns) for columns in zip(*parts, strict=True)]


def _called(model: Any, inputs: list[Any]) -> list[Any]:
    import keras

    return list(keras.tree.flatten(model(inputs if len(inputs) > 1 else inputs[0], training=False)))


def training_call(model: Any) -> Forward:
    """Return the model in training mode: dropout is active, batch normalization uses the batch."""
    import keras

    def forward(inputs: list[Any]) -> list[Any]:
        return list(keras.tree.flatten(model(inputs if len(inputs) > 1 else inputs[0], training=True)))

    return forward


def accuracy(outputs: Sequence[npt.NDArray[Any]], labels: npt.NDArray[np.int64] | None) -> float | None:
    """Return the top-1 accuracy, 0..1; None without labels."""
    right = hits(outputs, labels)
    return None if right is None else float(right.mean())


def hits(
    outputs: Sequence[npt.NDArray[Any]], labels: npt.NDArray[np.int64] | None
) -> npt.NDArray[np.bool_] | None:
    """Return whether each sample's largest output is its label; None without labels."""
    return None if labels is None else np.asarray(np.argmax(outputs[0], axis=-1) == labels).ravel()
