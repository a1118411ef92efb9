"""Open a Keras model: its inputs and outputs in the order and with the names that it declares."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeq_converters.data.files import missing
from edgeq_converters.errors import ConverterError
from edgeq_converters.sources.detect import SourceKind
from edgeq_converters.sources.types import SEED, Opened

Path_ = tuple[Any, ...]
_AUGMENTATION = "BaseImagePreprocessingLayer"  # of all augmentation layers; Keras does not export it


def open_keras(source: Path, kind: SourceKind) -> Opened:
    """Return a `.keras` or `.h5` model as a function of named tensors.

    A dictionary of inputs or outputs keeps its keys as names, in the order in which the model was made with
    them. An output of a list is called like its layer, with a number where a layer gives several.

    Raises:
        ConverterError: EQ305 the model cannot be loaded, EQ306 its input shape is not known.
    """
    if kind is SourceKind.LEGACY_KERAS:
        _require_hdf5_model(source)
    model = _load(source)
    if not getattr(model, "inputs", None):
        raise ConverterError(
            "EQ306",
            str(source),
            "the model's input shape is not known",
            hint="build the model, or call it once, before saving it",
        )
    inputs = _structure(model, "input")
    outputs = _structure(model, "output")
    declared = list(_leaves(inputs))
    specs = list(
        zip(
            unique(plain(_name(path, tensor.name), i) for i, (path, tensor) in enumerate(declared)),
            (tensor for _, tensor in declared),
            strict=True,
        )
    )
    names = _output_names(model, outputs)

    def call(tensors: Mapping[str, Any]) -> dict[str, Any]:
        given = iter(tensors[name] for name, _ in specs)
        result = dict(_leaves(model(_filled(inputs, given), training=False)))
        return {name: result[path] for path, name in names.items()}

    return Opened(
        call=call, specs=tuple(specs), keep=model, batch_is_first=True, without_seeds=_without_seeds
    )


def plain(name: str, index: int, what: str = "input") -> str:
    """Return a name that is a Python identifier, which TensorFlow requires of an argument."""
    changed = re.sub(r"\W", "_", name.split(":")[0])
    return f"{what}_{index}" if not changed.isidentifier() or keyword.iskeyword(changed) else changed


def unique(names: Iterator[str]) -> list[str]:
    """Return the names with a number after those that were there before: `enc`, `enc_1`."""
    given = list(names)
    result: list[str] = []
    for name in given:
        chosen, number = name, 0
        while chosen in result or (number and chosen in given):
            number += 1
            chosen = f"{name}_{number}"
        result.append(chosen)
    return result


def _structure(model: Any, what: str) -> Any:
    """Return the symbolic inputs or outputs as the model was made with them: a tensor, list or dictionary."""
    flat = list(getattr(model, f"{what}s"))
    given = getattr(model, what, None) if hasattr(model, "output_names") else None
    declared = given is not None and len(list(_leaves(given))) == len(flat)
    structure = given if declared else flat
    # A model with one tensor takes and gives it alone, also if it was made with a list of one.
    alone = isinstance(structure, (list, tuple)) and len(structure) == 1 and structure[0] is flat[0]
    return flat[0] if alone else structure


def _leaves(structure: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    if isinstance(structure, Mapping):
        for key, part in structure.items():
            yield from _leaves(part, (*path, key))
    elif isinstance(structure, (list, tuple)):
        alone = len(structure) == 1 and not path
        for index, part in enumerate(structure):
            yield from _leaves(part, path if alone else (*path, index))
    else:
        yield path, structure


def _filled(structure: Any, values: Iterator[Any]) -> Any:
    if isinstance(structure, Mapping):
        return {key: _filled(part, values) for key, part in structure.items()}
    if isinstance(structure, (list, tuple)):
        return [_filled(part, values) for part in structure]
    return next(values)


def _name(path: Path_, otherwise: str) -> str:
    """Return the name that the keys of a path give; `otherwise` where there is no key."""
    return "_".join(map(str, path)) if any(isinstance(part, str) for part in path) else otherwise


def _output_names(model: Any, outputs: Any) -> dict[Path_, str]:
    # A Keras 3 Sequential has no output_names, but its output tensors have names.
    flat = list(model.outputs)
    given = list(getattr(model, "output_names", None) or [tensor.name for tensor in flat])
    by_tensor: dict[int, list[str]] = {}
    for tensor, name in zip(flat, given, strict=True):
        by_tensor.setdefault(id(tensor), []).append(name)
    leaves = list(_leaves(outputs))
    names = [_name(path, by_tensor[id(tensor)].pop(0)) for path, tensor in leaves]
    made = unique(plain(name, i, "output") for i, name in enumerate(names))
    return dict(zip((path for path, _ in leaves), made, strict=True))


def _require_hdf5_model(source: Path) -> None:
    # h5py finds damage in a moment; TensorFlow takes seconds to start.
    try:
        import h5py  # type: ignore[import-untyped]
    except ImportError as error:
        raise missing("h5py (installed with TensorFlow)") from error
    try:
        with h5py.File(source, "r") as file:
            complete = "model_config" in file.attrs
    except OSError as error:
        raise ConverterError(
            "EQ305", str(source), f"truncated or damaged .h5 file ({error})", hint="save the model again"
        ) from error
    if not complete:
        raise ConverterError(
            "EQ305",
            str(source),
            "the .h5 file does not hold a model",
            expected="a complete Keras model",
            got="weights only, or another kind of HDF5 file",
            hint="save it with model.save(), not save_weights()",
        )


@contextmanager
def _without_seeds() -> Iterator[None]:
    """Give random layers of Keras 3 a constant for a seed: drawing one changes a variable.

    Some augmentation layers draw a seed in inference too, where they do nothing else.
    """
    import keras
    import tensorflow as tf

    generator = keras.random.SeedGenerator
    original = generator.next

    def constant(self: Any, ordered: bool = True) -> Any:
        return tf.zeros(self.state.shape, self.state.dtype, name=SEED)

    generator.next = constant
    try:
        yield
    finally:
        generator.next = original


@contextmanager
def _augmentation_as_saved(keras: Any) -> Iterator[None]:
    """Load augmentation layers whose class does not accept what it saved.

    Keras saves the range of a factor, (-0.2, 0.2), and some of its layers only take the factor itself.
    """
    base = next(each for each in keras.layers.RandomFlip.__mro__ if each.__name__ == _AUGMENTATION)
    original = base.__dict__.get("from_config")
    usual = base.from_config.__func__

    def from_config(cls: Any, config: dict[str, Any]) -> Any:
        try:
            return usual(cls, dict(config))
        except (TypeError, ValueError):
            return usual(cls, {key: _factor(value) for key, value in config.items()})

    base.from_config = classmethod(from_config)
    try:
        yield
    finally:
        if original is None:
            del base.from_config
        else:
            base.from_config = original


def _factor(value: Any) -> Any:
    """Return the factor of a symmetric range, and any other value as it is."""
    pair = isinstance(value, (list, tuple)) and len(value) == 2
    numbers = pair and all(isinstance(end, (int, float)) for end in value)
    return value[1] if numbers and value[0] == -value[1] else value


def _load(source: Path) -> Any:
    """Load with Keras 3, or else with tf_keras: Keras 3 rejects arguments of old layers."""
    import keras

    try:
        with _augmentation_as_saved(keras):
            return keras.models.load_model(source, compile=False)
    except Exception as first:  # noqa: BLE001 - try the older Keras after any failure; raised below
        try:
            import tf_keras
        except ImportError as error:
            raise missing("tf_keras") from error
        try:
            return tf_keras.models.load_model(str(source), compile=False)
        except Exception as second:
            raise first from second
