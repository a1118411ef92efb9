"""Cuts channels that give nothing but zeros out of a model and prints how far its outputs moved, as JSON.

Run as a program, so that TensorFlow stays out of pytest.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import keras
import numpy as np

from edgeq_converters.training.common import batch_norm, keras_graph
from edgeq_converters.training.pruning import surgery
from edgeq_converters.training.pruning.channel_choice import choose, kept
from edgeq_converters.training.pruning.channel_flow import SOURCES, follow
from edgeq_converters.training.pruning.importance import importance


def main(path: Path) -> None:
    """Print the largest differences of the outputs, and how many normalizations folding leaves."""
    model = keras.models.load_model(path, compile=False)
    x = np.random.default_rng(0).normal(size=(5, *model.inputs[0].shape[1:])).astype(np.float32)
    flow = follow(model)
    makers = [call.name for call in keras_graph.calls(model) if call.kind in SOURCES]
    gone = choose(flow, makers, importance(model, flow, makers), 0.5)
    said = {
        "nothing": _far(model, surgery.cut(model, flow, set()), x),
        "folded": _far(model, batch_norm.fold(model), x),
        "norms_after_folding": sum("normalization" in y.name for y in batch_norm.fold(model).layers),
        "moved": _far(model, surgery.cut(model, flow, gone), x),
    }
    for layer in model.layers:
        if layer.name in flow.gives:
            stay = set(kept(flow, flow.gives[layer.name], gone).tolist())
            dead = [i for i in range(len(flow.gives[layer.name])) if i not in stay]
            for variable in layer.weights:
                value = np.array(variable)
                if type(layer).__name__ == "DepthwiseConv2D" and variable.name == "kernel":
                    value[:, :, dead] = 0.0
                elif variable.name != "moving_variance":
                    value[..., dead] = 0.0
                variable.assign(value)
    said["dead"] = _far(model, surgery.cut(model, flow, gone), x)
    sys.stdout.write(json.dumps(said))


def _far(one: keras.Model, other: keras.Model, x: np.ndarray) -> float:
    return float(np.abs(np.asarray(one(x)) - np.asarray(other(x))).max())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
