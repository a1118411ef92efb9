"""Remove channels that are zero from a model and print, as JSON, how far its outputs moved.

Run as a program, so that TensorFlow stays out of pytest.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import keras
import numpy as np

from edgeq_converters.training.common import batch_norm, keras_graph
from edgeq_converters.training.pruning.channel_graph import SOURCES, trace
from edgeq_converters.training.pruning.channel_pruning import choose, importance, rebuild, remaining


def main(path: Path) -> None:
    """Print the largest differences of the outputs, and how many normalizations folding leaves."""
    model = keras.models.load_model(path, compile=False)
    x = np.random.default_rng(0).normal(size=(5, *model.inputs[0].shape[1:])).astype(np.float32)
    graph = trace(model)
    producers = [call.name for call in keras_graph.calls(model) if call.kind in SOURCES]
    removed = choose(graph, producers, importance(model, producers), 0.5)
    report = {
        "nothing": _far(model, rebuild(model, graph, set()), x),
        "folded": _far(model, batch_norm.fold(model), x),
        "norms_after_folding": sum("normalization" in y.name for y in batch_norm.fold(model).layers),
        "moved": _far(model, rebuild(model, graph, removed), x),
    }
    for layer in model.layers:
        if layer.name in graph.writes:
            stay = set(remaining(graph, graph.writes[layer.name], removed).tolist())
            dead = [i for i in range(len(graph.writes[layer.name])) if i not in stay]
            for variable in layer.weights:
                value = np.array(variable)
                if type(layer).__name__ == "DepthwiseConv2D" and variable.name == "kernel":
                    value[:, :, dead] = 0.0
                elif variable.name != "moving_variance":
                    value[..., dead] = 0.0
                variable.assign(value)
    report["dead"] = _far(model, rebuild(model, graph, removed), x)
    sys.stdout.write(json.dumps(report))


def _far(one: keras.Model, other: keras.Model, x: np.ndarray) -> float:
    return float(np.abs(np.asarray(one(x)) - np.asarray(other(x))).max())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
