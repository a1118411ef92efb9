"""Losses: cross-entropy against labels, or distillation from the float model's outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeq_converters.training.common.heads import Head

Loss = Callable[[list[Any], list[Any]], Any]
"""(outputs, targets) -> mean loss over the batch."""


def by_labels(head: Head) -> Loss:
    """Return the sparse categorical cross-entropy of one output; targets are [class numbers]."""
    import keras

    def loss(outputs: list[Any], targets: list[Any]) -> Any:
        return keras.ops.mean(
            keras.losses.sparse_categorical_crossentropy(
                targets[0], outputs[0], from_logits=head is Head.LOGITS
            )
        )

    return loss


def by_teacher(head: Head) -> Loss:
    """Return the distillation loss; targets are the float model's outputs.

    For class scores it is the Kullback-Leibler divergence at temperature one (Hinton et al., arXiv
    1503.02531); for other values the mean squared error, each output scaled by its own mean square.
    """
    import keras

    ops = keras.ops

    def divergence(outputs: list[Any], targets: list[Any]) -> Any:
        student, teacher = outputs[0], targets[0]
        if head is Head.LOGITS:
            student, teacher = ops.softmax(student), ops.softmax(teacher)
        student, teacher = ops.clip(student, 1e-7, 1.0), ops.clip(teacher, 1e-7, 1.0)
        return ops.mean(ops.sum(teacher * (ops.log(teacher) - ops.log(student)), axis=-1))

    def squares(outputs: list[Any], targets: list[Any]) -> Any:
        parts = [
            ops.mean(ops.square(out - target)) / (ops.mean(ops.square(target)) + 1e-6)
            for out, target in zip(outputs, targets, strict=True)
        ]
        return sum(parts[1:], parts[0])

    return squares if head is Head.VALUES else divergence


def by_both(head: Head) -> Loss:
    """Return the mean of both losses; targets are the class numbers, then the float model's outputs."""
    labelled, taught = by_labels(head), by_teacher(head)

    def loss(outputs: list[Any], targets: list[Any]) -> Any:
        return 0.5 * (labelled(outputs, targets[:1]) + taught(outputs, targets[1:]))

    return loss
