"""A loss given by the user: import it, and call it with the outputs and the targets by name."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.errors import ConverterError
from edgeq_converters.training.common.training_data import LabelledData
from edgeq_converters.training.loss_source import KERAS_LOSSES, LossSource

Array = npt.NDArray[Any]
Function = Callable[[Any, Any], Any]
"""(targets, outputs) -> a loss of each sample, or their mean."""


def imported(source: LossSource) -> Function:
    """Return the user's function.

    Raises:
        ConverterError: EQ339 the file cannot be imported, or has no such function.
    """
    if source.file is None:
        raise TypeError("a loss of Keras has no file")
    # A package is one folder above its __init__.py.
    depth = source.package.count(".") + (source.file.name == "__init__.py")
    root = source.file.resolve().parents[depth]
    sys.path.insert(0, str(root))
    try:
        value: Any = _module(source)
    except (Exception, SystemExit) as error:  # the file is the user's: it may raise anything
        raise refused(source, f"cannot be imported ({_short(error)})") from error
    for name in source.function.split("."):
        value = getattr(value, name, None)
    if not callable(value):
        raise refused(source, f"has no function {source.function!r}")
    function: Function = value
    return function


def _module(source: LossSource) -> ModuleType:
    if source.package:
        return importlib.import_module(source.package)
    spec = importlib.util.spec_from_file_location("edgeq_loss", source.file)
    if spec is None or spec.loader is None:
        raise ImportError("it is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look their module up here
    spec.loader.exec_module(module)
    return module


def refused(source: LossSource, problem: str) -> ConverterError:
    """Return the error for a loss that cannot be used."""
    return ConverterError(
        "EQ339",
        str(source),
        problem,
        expected="a function (targets, outputs) that returns a loss of each sample, or their mean",
        hint=f"give one of {', '.join(KERAS_LOSSES)}, or FILE.py:FUNCTION",
    )


def _short(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomLoss:
    """A loss of the outputs of a model.

    The function gets the targets first, as Keras' losses do: a tensor where there is one, else a dict by
    name. A loss of Keras is computed for every output with the target of its name, and summed.

    Attributes:
        outputs: names of the model's outputs.
        targets: names of the target arrays.
    """

    source: LossSource
    function: Function | None
    outputs: tuple[str, ...]
    targets: tuple[str, ...]

    def by_sample(self, outputs: Sequence[Any], targets: Sequence[Any]) -> Any:
        """Return the loss of each sample, or of the batch where the function returns one value."""
        import keras

        if self.function is None:
            loss = getattr(keras.losses, KERAS_LOSSES[self.source.function])
            given = dict(zip(self.targets, targets, strict=True))
            classes = self.source.function.startswith("sparse")
            parts = [
                _mean_of_each(loss(_shaped(given[name], output, classes=classes), output))
                for name, output in zip(self.outputs, outputs, strict=True)
            ]
            return sum(parts[1:], parts[0])
        named = _named(self.targets, targets), _named(self.outputs, outputs)
        return self.function(*named)

    def __call__(self, outputs: list[Any], targets: list[Any]) -> Any:
        """Return the mean loss of a batch."""
        import keras

        return keras.ops.mean(keras.ops.cast(self.by_sample(outputs, targets), "float32"))

    def of_each(self, outputs: Sequence[Array], targets: Sequence[Array]) -> npt.NDArray[np.float64]:
        """Return the loss of each sample as numbers.

        Args:
            outputs: real values, of a model or of a file.
        """
        import tensorflow as tf

        outputs = [np.asarray(output, np.float32) for output in outputs]
        compiled = tf.function(lambda given: self(*given), reduce_retracing=True)
        rows = len(outputs[0])
        losses = [
            float(
                compiled(
                    (
                        [tf.constant(each[row : row + 1]) for each in outputs],
                        [tf.constant(each[row : row + 1]) for each in targets],
                    )
                )
            )
            for row in range(rows)
        ]
        return np.array(losses, np.float64)


def _named(names: Sequence[str], values: Sequence[Any]) -> Any:
    return values[0] if len(values) == 1 else dict(zip(names, values, strict=True))


def _shaped(target: Any, output: Any, *, classes: bool) -> Any:
    """Return the target in the output's shape, because Keras broadcasts axes of size one.

    Args:
        classes: the target holds class numbers: it has no axis for the classes.
    """
    import keras

    shape = tuple(output.shape[1:-1] if classes else output.shape[1:])
    return target if None in shape else keras.ops.reshape(target, (-1, *shape))


def _mean_of_each(values: Any) -> Any:
    import keras

    rank = len(values.shape)
    return keras.ops.mean(values, axis=tuple(range(1, rank))) if rank > 1 else values


def of(source: LossSource, outputs: Sequence[str], targets: Mapping[str, Array]) -> CustomLoss:
    """Return the loss of a model with these outputs on data with these targets.

    Raises:
        ConverterError: EQ220 an output has no target, EQ339 the function cannot be imported.
    """
    missing = [name for name in outputs if name not in targets]
    if source.file is None and missing:
        named = "`y`" if len(outputs) == 1 else ", ".join(f"`y_{name}`" for name in outputs)
        raise ConverterError(
            "EQ220",
            "--training",
            f"the loss {source} needs a target for each output",
            expected=named,
            got=", ".join(f"`{name}`" for name in targets),
            hint="add the missing arrays, or give --loss FILE.py:FUNCTION, which takes any targets",
        )
    names = tuple(outputs) if source.file is None else tuple(targets)
    function = None if source.file is None else imported(source)
    return CustomLoss(source=source, function=function, outputs=tuple(outputs), targets=names)


def require_works(loss: CustomLoss, outputs: Sequence[Array], data: LabelledData) -> None:
    """Check the loss on the first samples: it returns a finite number that depends on the outputs.

    Args:
        outputs: of the model, on at least as many samples as it has.

    Raises:
        ConverterError: EQ339.
    """
    import tensorflow as tf

    _require_shapes(loss, outputs, data)
    tensors = [tf.constant(output) for output in outputs]
    targets = [tf.constant(data.targets[name][: len(outputs[0])]) for name in loss.targets]
    try:
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = loss(tensors, targets)
        gradients = tape.gradient(value, tensors)
        numbers = loss.of_each(outputs, [data.targets[name][: len(outputs[0])] for name in loss.targets])
    except (Exception, SystemExit) as error:  # the function is the user's: it may raise anything
        raise refused(loss.source, f"fails on the first samples ({_short(error)})") from error
    if not np.isfinite(numbers).all():
        raise refused(loss.source, f"is {numbers[~np.isfinite(numbers)][0]} on one of the first samples")
    if all(gradient is None for gradient in gradients):
        raise refused(loss.source, "does not depend on the outputs: it has no gradient")


def _require_shapes(loss: CustomLoss, outputs: Sequence[Array], data: LabelledData) -> None:
    """Check the targets of a loss of Keras, which would broadcast others to the output.

    Raises:
        ConverterError: EQ206.
    """
    if loss.function is not None:
        return
    for name, output in zip(loss.outputs, outputs, strict=True):
        expected = output.shape[1:-1] if loss.source.function.startswith("sparse") else output.shape[1:]
        got = data.targets[name].shape[1:]
        if tuple(size for size in got if size != 1) != tuple(size for size in expected if size != 1):
            raise ConverterError(
                "EQ206",
                "--training",
                f"the targets of {name!r} do not have its shape",
                expected=f"(samples, {', '.join(map(str, expected))})" if expected else "(samples,)",
                got=str(data.targets[name].shape),
            )
