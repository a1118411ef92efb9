"""The group lasso: a penalty that pulls whole channels towards zero before they are removed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgeq_converters.training.pruning.channel_graph import trace


def penalty(model: Any, weight: float) -> Callable[[], Any]:
    """Return the group lasso of the channels that may be removed, as a function of the model's weights now.

    It is the sum over channels of the root of (number of weights * sum of their squares), over the number of
    all weights (Yuan & Lin 2006; for channels Wen et al., arXiv 1608.03665). A channel's weights are all
    that make it, in every layer that it is coupled with.
    """
    import keras
    import tensorflow as tf

    graph = trace(model)
    parts = []
    for cut in graph.cuts:
        roots = graph.channels.roots(cut.channels)
        free = np.array([not graph.channels.is_fixed(int(root)) for root in roots])
        if cut.unit is not None and free.any():
            parts.append((model.get_layer(cut.layer).weights[cut.index], cut.axis, roots, free))
    known = sorted({int(root) for _, _, roots, free in parts for root in roots[free]})
    places = {root: place for place, root in enumerate(known)}
    sizes = np.zeros(len(known), np.float32)
    segments = []
    for variable, axis, roots, free in parts:
        segment = np.array([places.get(int(root), len(known)) for root in roots], np.int32)
        each = float(np.prod(variable.shape)) / len(roots)
        np.add.at(sizes, segment[free], each)
        segments.append((variable, axis, segment))
    total = max(float(sizes.sum()), 1.0)

    def value() -> Any:
        squares = tf.zeros(len(known) + 1, tf.float32)
        for variable, axis, segment in segments:
            others = [i for i in range(len(variable.shape)) if i != axis]
            sums = tf.reduce_sum(tf.square(variable.value), axis=others)
            squares += tf.math.unsorted_segment_sum(sums, segment, len(known) + 1)
        norms = keras.ops.sqrt(sizes * squares[: len(known)] + 1e-12)
        return weight * keras.ops.sum(norms) / total

    return value
