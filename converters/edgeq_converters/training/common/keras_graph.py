"""The one module that knows how Keras 3 keeps a model's graph: its calls in order, and running them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq_converters.data.sample_files import missing
from edgeq_converters.errors import ConverterError
from edgeq_converters.sources import detect
from edgeq_converters.sources.detect import SourceKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a layer or operation.

    Attributes:
        operation: the Keras layer or operation.
        inputs: the symbolic tensors that go in; their `id` is their identity.
        outputs: the symbolic tensors that come out.
        node: Keras' own record of the call.
    """

    operation: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    node: Any

    @property
    def kind(self) -> str:
        """The class of the layer or operation, as `Conv2D`."""
        return type(self.operation).__name__

    @property
    def name(self) -> str:
        """The layer's own name."""
        return str(self.operation.name)


Run = Callable[[Call, tuple[Any, ...], dict[str, Any]], Any]


def require_keras3(source: Path) -> None:
    """Check by its content that the source is a `.keras` file.

    Raises:
        ConverterError: EQ301, EQ302, EQ305 as `sources.detect`; EQ314 another kind of model.
    """
    kind = detect.detect(source)
    if kind is not SourceKind.KERAS:
        raise _unusable(source, f"a {kind} model")


def load(source: Path) -> Any:
    """Return the Functional or Sequential model of a `.keras` file, without its optimizer.

    Raises:
        ConverterError: EQ305 it cannot be loaded, EQ306 open shapes, EQ314 another kind of model.
    """
    require_keras3(source)
    try:
        import keras
    except ImportError as error:
        raise missing("TensorFlow") from error
    try:
        model = keras.models.load_model(source, compile=False)
    except Exception as error:  # Keras raises whatever a layer's own code threw
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ConverterError(
            "EQ305",
            str(source),
            f"Keras cannot load the model ({type(error).__name__}: {lines[0] if lines else ''})"[:240],
            hint="save it again by model.save() of Keras 3, without classes of its own",
        ) from error
    if not isinstance(model, keras.Sequential) and type(model).__name__ != "Functional":
        raise _unusable(source, f"a model of the class {type(model).__name__}")
    if not getattr(model, "inputs", None):
        raise ConverterError(
            "EQ306",
            str(source),
            "the model's input shape is not known",
            hint="build the model before saving it",
        )
    return model


def _unusable(source: Path, got: str) -> ConverterError:
    return ConverterError(
        "EQ314",
        str(source),
        expected="a Functional or Sequential model in a .keras file of Keras 3",
        got=got,
        hint="save it by model.save('model.keras'); models of other kinds convert without pruning and tuning",
    )


def calls(model: Any) -> list[Call]:
    """Return the model's calls, each after those whose outputs it takes; inputs are left out."""
    graph = _graph(model)
    found = []
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if node.operation is not None and not node.is_input:
                found.append(
                    Call(
                        operation=node.operation,
                        inputs=tuple(node.input_tensors),
                        outputs=tuple(node.outputs),
                        node=node,
                    )
                )
    return found


def run(model: Any, inputs: list[Any], call: Run) -> list[Any]:
    """Return the model's outputs, where `call(what, args, kwargs)` computes each call of a layer."""
    graph = _graph(model)
    values = {id(symbol): value for symbol, value in zip(graph.inputs, inputs, strict=True)}
    import keras

    for what in calls(model):
        args, kwargs = what.node.arguments.fill_in(values)
        results = keras.tree.flatten(call(what, args, kwargs))
        values.update({id(symbol): value for symbol, value in zip(what.outputs, results, strict=True)})
    return [values[id(symbol)] for symbol in graph.outputs]


def symbols(model: Any) -> tuple[list[Any], list[Any]]:
    """Return the model's symbolic inputs and outputs, whose identities are those in `calls`."""
    graph = _graph(model)
    return list(graph.inputs), list(graph.outputs)


def _graph(model: Any) -> Any:
    # A Sequential model keeps its graph in a Functional of its own.
    return getattr(model, "_functional", None) or model


def call_quietly(what: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the call's result in inference mode."""
    if hasattr(what.operation, "_call_has_training_arg") and what.operation._call_has_training_arg:
        kwargs = {**kwargs, "training": False}
    return what.operation(*args, **kwargs)


def forget_names() -> None:
    """Name what is loaded next as a new process would: tensors' names must not depend on earlier models."""
    import keras

    keras.utils.clear_session(free_memory=False)
