"""The graph of a Keras 3 model: its calls in order, and a way to run them one by one.

No other module touches Keras' private graph attributes.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq_converters.data.files import missing
from edgeq_converters.errors import ConverterError
from edgeq_converters.sources import detect
from edgeq_converters.sources.detect import SourceKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What holds a layer that another layer of the model calls.

    Attributes:
        of: the layer of the model.
        settings: where the inner layer's settings are in the configuration of the outer one, as
            `layer/config/`.
        name: of the inner layer among several.
    """

    of: Any
    settings: str
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a layer or operation.

    Attributes:
        operation: the Keras layer or operation.
        inputs: the symbolic input tensors, identified by their `id`.
        outputs: the symbolic output tensors.
        node: Keras' own record of the call.
        part: for a layer that another layer calls.
    """

    operation: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    node: Any
    part: Part | None = None

    @property
    def kind(self) -> str:
        """The class of the layer or operation, as `Conv2D`."""
        return type(self.operation).__name__

    @property
    def layer(self) -> Any:
        """The layer of the model: that which holds the operation, or the operation itself."""
        return self.operation if self.part is None else self.part.of

    @property
    def name(self) -> str:
        """The name of the layer of the model."""
        return str(self.layer.name)

    @property
    def unit(self) -> str:
        """The name of what the operation makes: the layer's, and for one of several parts also its own."""
        return f"{self.name} {self.part.name}" if self.part is not None and self.part.name else self.name


Run = Callable[[Call, tuple[Any, ...], dict[str, Any]], Any]


def require_keras3(source: Path) -> None:
    """Check that the source is a `.keras` file, by its content.

    Raises:
        ConverterError: EQ301, EQ302, EQ305 as `sources.detect`; EQ314, another kind of model.
    """
    kind = detect.detect(source)
    if kind is not SourceKind.KERAS:
        raise _unsupported(source, f"a {kind} model")


def load(source: Path) -> Any:
    """Return the Functional or Sequential model of a `.keras` file, without its optimizer.

    Raises:
        ConverterError: EQ305 it cannot be loaded, EQ306 its input shape is unknown, EQ314 another kind of
            model.
    """
    require_keras3(source)
    try:
        import keras
    except ImportError as error:
        raise missing("TensorFlow") from error
    try:
        model = keras.models.load_model(source, compile=False)
    except Exception as error:  # Keras passes on any exception of a layer's own code
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ConverterError(
            "EQ305",
            str(source),
            f"Keras cannot load the model ({type(error).__name__}: {lines[0] if lines else ''})"[:240],
            hint="save it again with model.save() of Keras 3, without custom classes",
        ) from error
    if not isinstance(model, keras.Sequential) and type(model).__name__ != "Functional":
        raise _unsupported(source, f"a model of the class {type(model).__name__}")
    if not getattr(model, "inputs", None):
        raise ConverterError(
            "EQ306",
            str(source),
            "the model's input shape is unknown",
            hint="build the model before saving it",
        )
    return model


def _unsupported(source: Path, got: str) -> ConverterError:
    keras = "save it with model.save('model.keras')"
    without_source = (
        f"without its source, `edgeq convert {shlex.quote(str(source))} -o MODEL.tflite --scheme int8"
        " --calibration UNLABELLED.npz` fits the integer weights to the float model"
    )
    return ConverterError(
        "EQ314",
        str(source),
        expected="a Functional or Sequential model in a .keras file of Keras 3",
        got=got,
        hint=without_source
        if got == f"a {SourceKind.TFLITE} model"
        else f"{keras}; other models can be converted, not pruned or tuned",
    )


def calls(model: Any) -> list[Call]:
    """Return the model's calls in topological order, without its input layers."""
    graph = _graph(model)
    in_order = []
    by_depth = graph._nodes_by_depth  # noqa: SLF001 # Keras has no public list of calls
    for depth in sorted(by_depth, reverse=True):
        for node in by_depth[depth]:
            if node.operation is not None and not node.is_input:
                in_order.append(
                    Call(
                        operation=node.operation,
                        inputs=tuple(node.input_tensors),
                        outputs=tuple(node.outputs),
                        node=node,
                    )
                )
    return in_order


def run(model: Any, inputs: list[Any], call: Run) -> list[Any]:
    """Return the model's outputs; `call(what, args, kwargs)` computes each call of a layer."""
    graph = _graph(model)
    values = {id(symbol): value for symbol, value in zip(graph.inputs, inputs, strict=True)}
    import keras

    for what in calls(model):
        args, kwargs = what.node.arguments.fill_in(values)
        results = keras.tree.flatten(call(what, args, kwargs))
        values.update({id(symbol): value for symbol, value in zip(what.outputs, results, strict=True)})
    return [values[id(symbol)] for symbol in graph.outputs]


def symbols(model: Any) -> tuple[list[Any], list[Any]]:
    """Return the model's symbolic inputs and outputs: the same objects as in `calls`."""
    graph = _graph(model)
    return list(graph.inputs), list(graph.outputs)


def output_names(model: Any) -> list[str]:
    """Return the names of the model's outputs, in the order of `symbols`."""
    return [str(name) for name in _graph(model).output_names]


def structures(model: Any) -> tuple[Any, Any]:
    """Return the nesting of the model's inputs and outputs: a tensor, a list or a dict of tensors."""
    graph = _graph(model)
    return graph._inputs_struct, graph._outputs_struct  # noqa: SLF001 # Keras has no public name for them


def maker_of(symbol: Any) -> Any:
    """Return the layer or operation whose output a symbolic tensor is."""
    return symbol._keras_history.operation  # noqa: SLF001 # Keras has no public name for it


def _graph(model: Any) -> Any:
    # A Sequential model keeps its graph in a Functional of its own.
    return getattr(model, "_functional", None) or model


def call_in_inference_mode(what: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run the call in inference mode and return its result."""
    if getattr(what.operation, "_call_has_training_arg", False):
        kwargs = {**kwargs, "training": False}
    return what.operation(*args, **kwargs)


def reset_names() -> None:
    """Reset Keras' naming counters, so that tensor names do not depend on models loaded earlier."""
    import keras

    keras.utils.clear_session(free_memory=False)
