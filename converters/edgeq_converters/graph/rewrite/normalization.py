"""Layer, group and instance normalization that subtracts the mean first, which loses less in integers.

Keras writes `x * s + (beta - mean * s)` with `s = gamma * rsqrt(variance + epsilon)`. In integers the two
terms are large and nearly cancel, and NEG has no integer kernel. The same function is
`(x - mean) * rsqrt(variance + epsilon) * gamma + beta`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq_converters.graph.rewrite.graph_editor import GraphEditor


@dataclass(frozen=True, slots=True, kw_only=True)
class _Normalization:
    """A normalization that ends in one ADD or SUB; tensors are indices.

    Attributes:
        end: the last operation.
        source: the tensor that is normalized.
        mean: of the source.
        root: the RSQRT of variance + epsilon.
        variance: the MEAN of the squared differences.
        gamma: None without one.
        beta: None without one.
    """

    end: Any
    source: int
    mean: int
    root: Any
    variance: Any
    gamma: int | None
    beta: int | None


def center_normalizations(editor: GraphEditor) -> int:
    """Rewrite every normalization that subtracts the scaled mean at the end; return how many there were."""
    matches = [each for each in (_match(editor, operator) for operator in list(editor.operators)) if each]
    for each in matches:
        _rewrite(editor, each)
    return len(matches)


def _match(editor: GraphEditor, end: Any) -> _Normalization | None:
    if editor.kind(end) not in {"ADD", "SUB"} or not _is_plain(end):
        return None
    first, second = int(end.inputs[0]), int(end.inputs[1])
    pairs = [(first, second)] if editor.kind(end) == "SUB" else [(first, second), (second, first)]
    for scaled, offset in pairs:
        product = editor.producer(scaled, "MUL")
        if product is None or not _is_plain(product):
            continue
        negative = editor.kind(end) == "SUB"
        for source, scale in (product.inputs, product.inputs[::-1]):
            shift = _shift(editor, offset, scale=int(scale), negative=negative)
            if shift is None:
                continue
            mean, beta = shift
            matched = _statistics(editor, int(source), mean, int(scale))
            if matched is not None:
                root, variance, gamma = matched
                return _Normalization(
                    end=end,
                    source=int(source),
                    mean=mean,
                    root=root,
                    variance=variance,
                    gamma=gamma,
                    beta=beta,
                )
    return None


def _shift(editor: GraphEditor, offset: int, *, scale: int, negative: bool) -> tuple[int, int | None] | None:
    """Return (mean, beta) of the offset `beta - mean * scale`; of `mean * scale` if `negative`."""
    if negative:
        mean = _other_factor(editor, offset, scale)
        return None if mean is None else (mean, None)
    mean = _negative_mean(editor, offset, scale)
    if mean is not None:
        return mean, None
    operator = editor.producer(offset)
    if editor.kind(operator) == "SUB" and _is_plain(operator):
        mean = _other_factor(editor, int(operator.inputs[1]), scale)
        return None if mean is None else (mean, int(operator.inputs[0]))
    if editor.kind(operator) == "ADD" and _is_plain(operator):
        for term, beta in (operator.inputs, operator.inputs[::-1]):
            mean = _negative_mean(editor, int(term), scale)
            if mean is not None:
                return mean, int(beta)
    return None


def _negative_mean(editor: GraphEditor, term: int, scale: int) -> int | None:
    """Return the mean of `(-mean) * scale` or `-(mean * scale)`."""
    negated = editor.producer(term, "NEG")
    if negated is not None:
        return _other_factor(editor, int(negated.inputs[0]), scale)
    mean = _other_factor(editor, term, scale)
    if mean is None:
        return None
    inner = editor.producer(mean, "NEG")
    return None if inner is None else int(inner.inputs[0])


def _other_factor(editor: GraphEditor, product: int, factor: int) -> int | None:
    operator = editor.producer(product, "MUL")
    if operator is None or not _is_plain(operator):
        return None
    pair = [int(i) for i in operator.inputs]
    if factor not in pair:
        return None
    return pair[1] if pair[0] == factor else pair[0]


def _statistics(
    editor: GraphEditor, source: int, mean: int, scale: int
) -> tuple[Any, Any, int | None] | None:
    """Return (RSQRT, MEAN of the squared differences, gamma) if they belong to this source and mean."""
    if editor.producer(mean, "MEAN") is None or int(editor.producer(mean).inputs[0]) != source:
        return None
    roots: list[tuple[Any, int | None]] = [(editor.producer(scale, "RSQRT"), None)]
    product = editor.producer(scale, "MUL")
    if product is not None and _is_plain(product):
        roots += [
            (editor.producer(int(root), "RSQRT"), int(gamma))
            for root, gamma in (product.inputs, product.inputs[::-1])
        ]
    for root, gamma in roots:
        added = None if root is None else editor.producer(int(root.inputs[0]), "ADD")
        if added is None or not _is_plain(added):
            continue
        for index in added.inputs:
            variance = editor.producer(int(index), "MEAN")
            if variance is not None and _is_squared_difference(editor, int(variance.inputs[0]), source, mean):
                return root, variance, gamma
    return None


def _is_squared_difference(editor: GraphEditor, index: int, source: int, mean: int) -> bool:
    operator = editor.producer(index)
    if editor.kind(operator) == "SQUARED_DIFFERENCE":
        return {int(i) for i in operator.inputs} == {source, mean}
    if editor.kind(operator) == "SQUARE" or (
        editor.kind(operator) == "MUL" and int(operator.inputs[0]) == int(operator.inputs[1])
    ):
        difference = editor.producer(int(operator.inputs[0]), "SUB")
        return difference is not None and [int(i) for i in difference.inputs] == [source, mean]
    return False


def _is_plain(operator: Any) -> bool:
    """Return whether no activation is fused into an operation."""
    return operator.builtinOptions is None or not getattr(
        operator.builtinOptions, "fusedActivationFunction", 0
    )


def _rewrite(editor: GraphEditor, match: _Normalization) -> None:
    name = editor.name(int(match.end.outputs[0]))
    shape = editor.shape(match.source)
    centered = editor.add_tensor(f"{name}.centered", shape)
    squared = editor.add_tensor(f"{name}.squared", shape)
    editor.insert(match.variance, "SUB", [match.source, match.mean], centered)
    editor.insert(match.variance, "MUL", [centered, centered], squared)
    match.variance.inputs = np.array([squared, *match.variance.inputs[1:]], np.int32)
    factors = [int(match.root.outputs[0])]
    if match.gamma is not None:
        factors.append(match.gamma)
    value = centered
    for number, factor in enumerate(factors):
        last = number == len(factors) - 1 and match.beta is None
        if last:
            editor.replace(match.end, "MUL", [value, factor])
            return
        product = editor.add_tensor(f"{name}.scaled", shape)
        editor.insert(match.end, "MUL", [value, factor], product)
        value = product
    if match.beta is not None:
        editor.replace(match.end, "ADD", [value, match.beta])
