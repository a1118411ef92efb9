"""Read the shapes of a Keras model's outputs from its configuration, where its layers make them certain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeq_converters.sources.detect import SourceKind
from edgeq_converters.sources.keras_config import configuration
from edgeq_converters.values import TensorInfo

_OPEN = -1
Shape = tuple[int, ...]
_SAME_SHAPE = {
    "Activation",
    "ActivityRegularization",
    "BatchNormalization",
    "Dropout",
    "ELU",
    "GaussianDropout",
    "GaussianNoise",
    "LayerNormalization",
    "LeakyReLU",
    "Normalization",
    "ReLU",
    "Rescaling",
    "Softmax",
}
"""Layers whose output has the shape of their input."""
_GLOBAL = {f"Global{kind}Pooling{axes}D" for kind in ("Average", "Max") for axes in (1, 2, 3)}
"""Layers that keep the batch and the channels, which are the last axis unless the layer says otherwise."""


def declared_outputs(source: Path, kind: SourceKind) -> tuple[TensorInfo, ...] | None:
    """Return the outputs of a model, -1 for each open dimension; None where that is not certain.

    The types are those of the layers; the names are those of the layers.
    """
    body = configuration(source, kind)
    inner = body.get("config")
    if not isinstance(inner, Mapping) or not isinstance(inner.get("layers"), list):
        return None
    layers = [layer for layer in inner["layers"] if isinstance(layer, Mapping)]
    by_name = {str(_config(layer).get("name")): layer for layer in layers}
    if body.get("class_name") == "Sequential":
        before = {
            str(_config(layer).get("name")): str(_config(layers[number - 1]).get("name"))
            for number, layer in enumerate(layers)
            if number
        }
        names = [str(_config(layers[-1]).get("name"))] if layers else []
    else:
        before = {name: feeds for name, layer in by_name.items() if (feeds := _source_of(layer))}
        names = _ends(inner.get("output_layers"))
    shapes = [_shape_of(name, by_name, before) for name in names]
    if not shapes or None in shapes:
        return None
    return tuple(
        TensorInfo(name=name, shape=shape, dtype="float32")
        for name, shape in zip(names, shapes, strict=True)
        if shape is not None
    )


def _config(layer: Mapping[str, Any]) -> Mapping[str, Any]:
    config = layer.get("config")
    return config if isinstance(config, Mapping) else {}


def _ends(listed: Any) -> list[str]:
    """Return the layers' names of `[name, 0, 0]` or `[[name, 0, 0], ...]`; none if it is something else."""
    if not isinstance(listed, list) or not listed:
        return []
    entries = [listed] if isinstance(listed[0], str) else listed
    certain = all(isinstance(entry, list) and len(entry) == 3 and entry[2] == 0 for entry in entries)
    return [str(entry[0]) for entry in entries] if certain else []


def _source_of(layer: Mapping[str, Any]) -> str | None:
    """Return the layer that feeds a layer; None for several, or where the configuration has another form."""
    nodes = layer.get("inbound_nodes")
    if not isinstance(nodes, list) or len(nodes) != 1:
        return None
    node = nodes[0]
    if isinstance(node, Mapping):  # Keras 3: {"args": [a tensor], "kwargs": {}}
        tensor = node["args"][0] if isinstance(node.get("args"), list) and len(node["args"]) == 1 else None
        history = _config(tensor).get("keras_history") if isinstance(tensor, Mapping) else None
        return str(history[0]) if isinstance(history, list) and len(history) == 3 else None
    # Keras 2: [[name, 0, 0, {}]]
    if isinstance(node, list) and len(node) == 1 and isinstance(node[0], list) and node[0]:
        return str(node[0][0])
    return None


def _shape_of(
    name: str, layers: Mapping[str, Mapping[str, Any]], before: Mapping[str, str], depth: int = 0
) -> Shape | None:
    layer = layers.get(name)
    if layer is None or depth > len(layers):  # a damaged configuration may go round in circles
        return None
    kind, config = str(layer.get("class_name")), _config(layer)
    if kind == "InputLayer":
        return _sizes(config.get("batch_shape") or config.get("batch_input_shape"))
    given = _recorded(layer)
    if given is None:
        given = _shape_of(before.get(name, ""), layers, before, depth + 1)
    if given is None and (kind == "Flatten" or (kind in _GLOBAL and not config.get("keepdims"))):
        return (_OPEN, _OPEN)
    return None if given is None else _after(kind, config, given)


def _recorded(layer: Mapping[str, Any]) -> Shape | None:
    """Return the shape of a layer's input as Keras 3 records it."""
    build = layer.get("build_config")
    return _sizes(build.get("input_shape")) if isinstance(build, Mapping) else None


def _after(kind: str, config: Mapping[str, Any], given: Shape) -> Shape | None:
    """Return the shape of a layer's output; None for a kind of layer that is not known here."""
    if kind in _SAME_SHAPE:
        return given
    units = config.get("units")
    if kind == "Dense" and isinstance(units, int) and given:
        return (*given[:-1], units)
    if kind == "Flatten" and given:
        return (given[0], _OPEN if _OPEN in given[1:] else math.prod(given[1:]))
    usual = config.get("data_format") in (None, "channels_last") and not config.get("keepdims")
    if kind in _GLOBAL and usual and len(given) > 1:
        return (given[0], given[-1])
    target = config.get("target_shape")
    if kind == "Reshape" and isinstance(target, Sequence) and given:
        sizes = _sizes(list(target))
        return None if sizes is None or _OPEN in sizes else (given[0], *sizes)
    return None


def _sizes(listed: Any) -> Shape | None:
    if not isinstance(listed, list) or not all(size is None or isinstance(size, int) for size in listed):
        return None
    return tuple(_OPEN if size is None else size for size in listed)
