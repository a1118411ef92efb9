"""Copy a Keras model call by call: without nested models, with other settings and weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from edgeq_converters.training.common import keras_graph

_NESTED = {"Functional", "Sequential"}


def flattened(model: Any) -> Any:
    """Return the model with the layers of nested models in its own graph, or itself where there are none."""
    if not any(call.kind in _NESTED for call in keras_graph.calls(model)):
        return model
    return ModelCopy({}, {}, {}).of(model)


class ModelCopy:
    """Calls copies of a model's layers on new symbolic inputs.

    Args:
        settings: {layer: {key of its configuration: new value}}; slashes lead to an inner layer.
        keys: {id of Keras' record of a slice: new key}.
        weights: {layer: weights}; other layers keep theirs.
    """

    def __init__(
        self,
        settings: Mapping[str, Mapping[str, Any]],
        keys: Mapping[int, tuple[Any, ...]],
        weights: Mapping[str, list[npt.NDArray[Any]]],
    ) -> None:
        self._settings, self._keys, self._weights = settings, keys, weights
        self._copies: dict[int, Any] = {}
        self._sources: dict[int, Any] = {}
        self._names: set[str] = set()
        self._within: list[str] = []

    def of(self, model: Any) -> Any:
        """Return the copy."""
        import keras

        inputs = [self._input(symbol) for symbol in keras_graph.symbols(model)[0]]
        outputs = keras_graph.run(model, inputs, self._call)
        named = zip(outputs, keras_graph.output_names(model), strict=True)
        outputs = [self._named(output, name) for output, name in named]
        structures = keras_graph.structures(model)
        copy = keras.Model(
            *(
                keras.tree.pack_sequence_as(structure, flat)
                for structure, flat in zip(structures, (inputs, outputs), strict=True)
            ),
            name=model.name,
        )
        for number, source in self._sources.items():
            if source.weights:
                self._copies[number].set_weights(self._weights.get(source.name, source.get_weights()))
        return copy

    def _input(self, symbol: Any) -> Any:
        layer = keras_graph.maker_of(symbol)
        self._names.add(layer.name)
        return type(layer).from_config(layer.get_config()).output

    def _named(self, output: Any, name: str) -> Any:
        """Return the output under the name of the nested model that made it."""
        import keras

        if keras_graph.maker_of(output).name == name or name in self._names:
            return output
        self._names.add(name)
        return keras.layers.Identity(name=name)(output)

    def _call(self, what: keras_graph.Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        import keras

        if what.kind in _NESTED:
            self._within.append(what.name)
            outputs = keras_graph.run(what.operation, keras.tree.flatten(args), self._call)
            self._within.pop()
            return keras.tree.pack_sequence_as(keras_graph.structures(what.operation)[1], outputs)
        operation = what.operation
        if id(operation) not in self._copies:
            self._copies[id(operation)] = self._copied(operation)
        if id(what.node) in self._keys:
            args, kwargs = (args[0], self._keys[id(what.node)]), {}
        return self._copies[id(operation)](*args, **kwargs)

    def _copied(self, operation: Any) -> Any:
        config = _without_shapes(operation.get_config())
        for key, value in self._settings.get(operation.name, {}).items():
            *path, last = key.split("/")
            within = config
            for name in path:
                within = within[name]
            within[last] = value
        config["name"] = self._unique(operation.name)
        copy = type(operation).from_config(config)
        if hasattr(operation, "weights"):
            self._sources[id(operation)] = operation
        return copy

    def _unique(self, name: str) -> str:
        if name in self._names and self._within:
            name = f"{'_'.join(self._within)}_{name}"
        number, unique = 1, name
        while unique in self._names:
            number, unique = number + 1, f"{name}_{number}"
        self._names.add(unique)
        return unique


def _without_shapes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration whose inner layers are not built: they may get other input shapes."""
    inner = {
        key: {
            **{name: each for name, each in value.items() if name != "build_config"},
            "config": _without_shapes(value["config"]),
        }
        for key, value in config.items()
        if isinstance(value, Mapping) and isinstance(value.get("config"), Mapping)
    }
    return {**config, **inner}
