"""The kind of a model's output, which decides its loss: class probabilities, logits, or other values."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from edgeq_converters.errors import ConverterError
from edgeq_converters.training.common import keras_graph


class Head(StrEnum):
    """The kinds of outputs."""

    PROBABILITIES = "probabilities"
    LOGITS = "logits"
    VALUES = "values"


def head_of(model: Any) -> Head:
    """Return the kind of the model's output, from the activation of its last layer."""
    _, outputs = keras_graph.symbols(model)
    if len(outputs) != 1 or len(outputs[0].shape) != 2 or (outputs[0].shape[-1] or 0) < 2:
        return Head.VALUES
    last = next(call for call in keras_graph.calls(model) if any(out is outputs[0] for out in call.outputs))
    activation = _activation(last)
    if activation == "softmax":
        return Head.PROBABILITIES
    return Head.LOGITS if activation == "linear" and last.kind in _SCORES else Head.VALUES


_SCORES = {"Dense", "Flatten", "Reshape", "GlobalAveragePooling2D", "GlobalMaxPooling2D", "Add", "Activation"}


def _activation(call: keras_graph.Call) -> str:
    if call.kind == "Softmax":
        return "softmax"
    function = getattr(call.operation, "activation", None)
    return "linear" if function is None else str(getattr(function, "__name__", type(function).__name__))


def require_classes(model: Any, *, subject: str) -> Head:
    """Return the head of a model with class scores.

    Raises:
        ConverterError: EQ315, the output is not a set of class scores.
    """
    head = head_of(model)
    if head is Head.VALUES:
        shapes = ", ".join(str(tuple(out.shape)) for out in keras_graph.symbols(model)[1])
        raise ConverterError(
            "EQ315",
            subject,
            "the model's output is not a set of class scores, so no loss is known for it",
            expected="one output (batch, classes) of softmax or linear scores",
            got=shapes,
            hint="add --loss mse or --loss FILE.py:FUNCTION; or --distill, which trains towards the float "
            "model's outputs",
        )
    return head
