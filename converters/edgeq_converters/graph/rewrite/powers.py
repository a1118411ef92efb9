"""Poolings and normalizations by powers, written out: their own kernels compute in float only."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from edgeq_converters.graph.rewrite.graph_editor import GraphEditor


def pool_squares(editor: GraphEditor) -> int:
    """Rewrite L2_POOL_2D as MUL, AVERAGE_POOL_2D and SQRT; return how many there were."""
    pools = [each for each in editor.operators if editor.kind(each) == "L2_POOL_2D"]
    pools = [each for each in pools if not editor.activation(each)]
    for operator in pools:
        source, target = int(operator.inputs[0]), int(operator.outputs[0])
        name = editor.name(target)
        squares = editor.add_tensor(f"{name}.squares", editor.shape(source))
        editor.insert(operator, "MUL", [source, source], squares)
        means = editor.add_tensor(f"{name}.means", editor.shape(target))
        average = editor.insert(operator, "AVERAGE_POOL_2D", [squares], means)
        average.builtinOptions = copy.copy(operator.builtinOptions)
        average.builtinOptionsType = operator.builtinOptionsType
        editor.replace(operator, "SQRT", [means])
    return len(pools)


def normalize_responses(editor: GraphEditor) -> int:
    """Rewrite LOCAL_RESPONSE_NORMALIZATION as `x * (bias + alpha * sum of squares) ^ -beta`; return how many.

    The sum over neighbouring channels is a FULLY_CONNECTED whose weights are alpha in a band.
    """
    kind = "LOCAL_RESPONSE_NORMALIZATION"
    layers = [each for each in editor.operators if editor.kind(each) == kind]
    for operator in layers:
        _normalize(editor, operator)
    return len(layers)


def _normalize(editor: GraphEditor, operator: Any) -> None:
    source, target, options = int(operator.inputs[0]), int(operator.outputs[0]), operator.builtinOptions
    name, shape = editor.name(target), editor.shape(source)
    channel = np.arange(shape[-1])
    band = np.abs(channel[:, None] - channel[None, :]) <= int(options.radius)
    weights = editor.add_constant(f"{name}.band", band.astype(np.float32) * np.float32(options.alpha))
    bias = editor.add_constant(f"{name}.bias", np.full(shape[-1], options.bias, np.float32))
    squares = editor.add_tensor(f"{name}.squares", shape)
    editor.insert(operator, "MUL", [source, source], squares)
    total = editor.add_tensor(f"{name}.total", shape)
    editor.insert(operator, "FULLY_CONNECTED", [squares, weights, bias], total, keepNumDims=True)
    exponent = editor.add_constant(f"{name}.exponent", np.array(-options.beta, np.float32))
    factor = editor.add_tensor(f"{name}.factor", shape)
    editor.insert(operator, "POW", [total, exponent], factor)
    editor.replace(operator, "MUL", [source, factor])
