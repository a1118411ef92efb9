"""Read the inputs of a Keras model from its configuration; TensorFlow would take seconds to start."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from keyword import iskeyword
from pathlib import Path
from typing import Any

from edgeq_converters.data import files
from edgeq_converters.sources.detect import SourceKind
from edgeq_converters.values import TensorInfo

_OPEN = -1


def declared_inputs(source: Path, kind: SourceKind) -> tuple[TensorInfo, ...] | None:
    """Return the inputs that a model declares, -1 for each open dimension; None where that is not certain.

    Inputs in a dictionary or in nested lists are not certain: their names follow from the loaded model.
    """
    body = configuration(source, kind)
    inner = body.get("config")
    if not isinstance(inner, Mapping):
        return None
    listed, kind_of_model = inner.get("layers"), str(body.get("class_name"))
    layers = [layer for layer in listed if isinstance(layer, Mapping)] if isinstance(listed, list) else []
    inputs = {
        str(layer["config"].get("name")): layer["config"]
        for layer in layers
        if layer.get("class_name") == "InputLayer" and isinstance(layer.get("config"), Mapping)
    }
    names = None
    if kind_of_model in {"Functional", "Model"}:
        names = _names(inner.get("input_layers"))
    elif kind_of_model == "Sequential" and len(inputs) == 1 and layers[0].get("class_name") == "InputLayer":
        names = list(inputs)
    if not names or not set(names) <= set(inputs):
        return None
    infos = [_info(name, inputs[name]) for name in names]
    return None if None in infos else tuple(info for info in infos if info is not None)


def configuration(source: Path, kind: SourceKind) -> Mapping[str, Any]:
    """Return the model's configuration; empty where it cannot be read, which loading then reports."""
    try:
        if kind is SourceKind.KERAS:
            with zipfile.ZipFile(source) as archive:
                text: Any = archive.read("config.json")
        else:
            import h5py  # type: ignore[import-untyped]

            with h5py.File(source, "r") as file:
                text = file.attrs["model_config"]
        body = json.loads(text)
    except (*files.UNREADABLE, ImportError):
        return {}
    return body if isinstance(body, Mapping) else {}


def _names(listed: Any) -> list[str] | None:
    """Return the input layers' names of `[name, 0, 0]` or `[[name, 0, 0], ...]`."""
    if not isinstance(listed, list) or not listed:
        return None
    entries = [listed] if isinstance(listed[0], str) else listed
    if not all(isinstance(entry, list) and entry and isinstance(entry[0], str) for entry in entries):
        return None
    return [entry[0] for entry in entries]


def _info(name: str, config: Mapping[str, Any]) -> TensorInfo | None:
    shape = config.get("batch_shape") or config.get("batch_input_shape")
    dtype = config.get("dtype") or "float32"
    if not isinstance(shape, list) or not all(size is None or isinstance(size, int) for size in shape):
        return None
    if not isinstance(dtype, str) or not name.isidentifier() or iskeyword(name):
        return None
    wide = "float32" if dtype in {"float16", "bfloat16"} else dtype
    return TensorInfo(name=name, shape=tuple(_OPEN if size is None else size for size in shape), dtype=wide)
