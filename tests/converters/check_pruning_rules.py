"""Prune models and print, as JSON, how far each is from the same model with the channels set to zero.

Run as a program, so that TensorFlow stays out of pytest: with names of models, numbers of random ones, or
files. `--planted` makes the rule of depthwise convolutions wrong.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np

from edgeq_converters.errors import ConverterError
from edgeq_converters.training.common import batch_norm, keras_graph
from edgeq_converters.training.common.model_copy import flattened
from edgeq_converters.training.pruning import channel_graph, channel_pruning, weight_rules
from edgeq_converters.training.pruning.channel_graph import trace
from edgeq_converters.training.pruning.channels import Labels
from edgeq_converters.training.pruning.importance import importance
from edgeq_converters.training.pruning.rebuild import rebuild, zeroed
from edgeq_converters.training.pruning.tracer import Tracer
from edgeq_converters.training.pruning.weight_rules import Flow
from edgeq_converters.training.settings import Criterion
from tests.converters.make_prunable import MODELS, random_model, samples_of, with_random_weights


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A model before and after pruning.

    Attributes:
        far: the largest difference of the outputs, relative to the largest output.
        same: that of the rebuilt model with all channels.
        moved: that of the pruned model from the original one.
        folded: that of the model without its batch normalizations, and how many of these stay.
    """

    far: float
    same: float
    moved: float
    folded: tuple[float, int]
    layers: dict[str, tuple[int, int]]
    unpruned: dict[str, str]
    outputs: tuple[list[str], list[str]]
    error: str = ""


def main(names: list[str]) -> None:
    """Print {model: what was checked}."""
    checked = {}
    if names[:1] == ["--planted"]:
        names = names[1:]
        channel_graph.RULES = {**channel_graph.RULES, "DepthwiseConv2D": _reversed}
    for number, name in enumerate(names):
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(number)
        if name.endswith(".keras"):
            model = keras.models.load_model(name, compile=False)
        else:
            model = _loaded_again(MODELS[name]() if name in MODELS else random_model(int(name)), number)
        checked[name] = asdict(check(model, number))
    sys.stdout.write(json.dumps(checked))


def _reversed(trace: Tracer, call: keras_graph.Call, inputs: Flow) -> Flow:
    (labels,) = weight_rules.depthwise_convolution(trace, call, inputs)
    return [labels and Labels(axis=labels.axis, channels=labels.channels[::-1])]


def _loaded_again(model: keras.Model, seed: int) -> keras.Model:
    # A file holds what a graph in memory may hide.
    with_random_weights(model, seed)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
        return keras.models.load_model(Path(folder) / "model.keras", compile=False)


def check(model: keras.Model, seed: int) -> Checked:
    """Prune a model by a criterion and a share that the seed chooses."""
    random = np.random.default_rng(seed)
    shares = channel_pruning.Shares(channels=random.uniform(0.2, 0.8), heads=0.5)
    criterion = list(Criterion)[seed % 3]
    samples = samples_of(model, seed)
    whole = flattened(model)
    graph = trace(whole)
    removed = channel_pruning.choose(graph, importance(whole, graph, criterion), shares)
    same = max(_far(model, whole, samples), _far(model, rebuild(whole, graph, set()), samples))
    smaller = rebuild(whole, graph, removed)
    far, moved = _far(zeroed(whole, graph, removed), smaller, samples), _far(model, smaller, samples)
    names = keras_graph.output_names(model)
    without = batch_norm.fold(whole)
    folded = _far(model, without, samples), sum("normalization" in each.name for each in without.layers)
    try:
        pruned = channel_pruning.prune(model, shares, criterion=criterion, samples=samples, subject="model")
    except ConverterError as error:
        return Checked(
            far=far,
            same=same,
            moved=moved,
            folded=folded,
            layers={},
            unpruned={},
            outputs=(names, names),
            error=str(error),
        )
    return Checked(
        far=far,
        same=same,
        moved=moved,
        folded=folded,
        layers=pruned.layers,
        unpruned=pruned.unpruned,
        outputs=(names, keras_graph.output_names(pruned.model)),
    )


def _far(one: keras.Model, other: keras.Model, samples: list[np.ndarray]) -> float:
    outputs = [
        [
            np.asarray(out)
            for out in keras.tree.flatten(
                model(keras.tree.pack_sequence_as(keras_graph.structures(model)[0], samples))
            )
        ]
        for model in (one, other)
    ]
    return max(float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-3)) for a, b in zip(*outputs, strict=True))


if __name__ == "__main__":
    main(sys.argv[1:])
