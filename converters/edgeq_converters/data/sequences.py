"""Samples that follow each other: arrays of whole sequences, and the states that pass from step to step."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq_converters.data import array_names
from edgeq_converters.data.files import RawSamples
from edgeq_converters.data.samples import Samples, fills_input, fits, match
from edgeq_converters.errors import ConverterError
from edgeq_converters.values import TensorInfo

Array = npt.NDArray[Any]


def match_sequences(
    raw: RawSamples,
    inputs: Sequence[TensorInfo],
    *,
    states: Collection[int],
    initial: Mapping[int, Array] | None = None,
) -> Samples:
    """Return the samples for a model that may keep or carry a state.

    An array of shape (sequences, steps, *shape of a sample) is taken apart into its steps, and the ids of the
    sequences follow from it. An input that is a state needs no array: it begins with zeros. An array gives
    the states that sequences begin with, or, where the samples are independent, the state of each sample.

    Args:
        states: positions of the inputs that take an output of the step before.
        initial: the values that states without an array begin with, by position; zeros without.

    Raises:
        ConverterError: as `samples.match`.
    """
    if raw.images:
        return match(raw, inputs)
    return replace(
        match(_with_states(in_steps(raw, inputs, states), inputs, states, initial or {}), inputs),
        states=tuple(states),
    )


def gives_states(raw: RawSamples, inputs: Sequence[TensorInfo], states: Collection[int]) -> bool:
    """Return whether the data has an array for each state."""
    return None not in _keys(raw, inputs, states)


def _keys(raw: RawSamples, inputs: Sequence[TensorInfo], states: Collection[int]) -> list[str | None]:
    """Return the name of each input's array; None where it has none."""
    every = array_names.pair([tensor.name for tensor in inputs], raw.arrays)
    if every is not None and (not states or len(set(every)) == len(inputs)):
        return list(every)
    keys: list[str | None] = [None] * len(inputs)
    for position in states:
        keys[position] = array_names.by_name(
            inputs[position].name, [each.name for each in inputs], raw.arrays
        )
    others = [position for position in range(len(inputs)) if position not in states]
    left = [name for name in raw.arrays if name not in keys]
    rest = array_names.pair([inputs[position].name for position in others], left) if others else ()
    for position, name in zip(others, rest or (), strict=False):
        keys[position] = name
    return keys


def _with_states(
    raw: RawSamples, inputs: Sequence[TensorInfo], states: Collection[int], initial: Mapping[int, Array]
) -> RawSamples:
    keys = _keys(raw, inputs, states)
    missing = [position for position in states if keys[position] is None]
    if not missing or not raw.arrays:
        return raw
    count = len(next(iter(raw.arrays.values())))
    batch = _batch(raw, inputs, states, keys)
    arrays = dict(raw.arrays)
    for position, key in enumerate(keys):
        if key is not None and position not in missing:
            arrays[inputs[position].name] = arrays.pop(key)
    for position in missing:
        shape = inputs[position].shape
        sample = shape[1:] if shape and shape[0] in (1, -1, batch) else shape
        first = np.asarray(initial.get(position, 0), np.float32)
        first = first.reshape(sample) if first.shape else first
        arrays[inputs[position].name] = np.broadcast_to(first, (count, *sample))
    return replace(raw, arrays=arrays)


def _batch(
    raw: RawSamples, inputs: Sequence[TensorInfo], states: Collection[int], keys: Sequence[str | None]
) -> int:
    """Return how many samples the inputs beside the states take in one run."""
    given = [
        (key, tensor) for n, (key, tensor) in enumerate(zip(keys, inputs, strict=True)) if n not in states
    ]
    sizes = {
        tensor.shape[0]
        for key, tensor in given
        if key is not None and tensor.shape and fits(raw.arrays[key].shape[1:], tensor.shape[1:])
    }
    return sizes.pop() if len(sizes) == 1 else 1


def in_steps(raw: RawSamples, inputs: Sequence[TensorInfo], states: Collection[int]) -> RawSamples:
    """Return the samples with the arrays of whole sequences taken apart into their steps.

    Raises:
        ConverterError: EQ203 only some inputs have arrays of whole sequences, or they differ in size.
    """
    keys = _keys(raw, inputs, states)
    given = [(keys[n], tensor) for n, tensor in enumerate(inputs) if n not in states and keys[n] is not None]
    whole = [_is_sequence(raw.arrays[str(key)], tensor) for key, tensor in given]
    if not any(whole):
        return raw
    sizes = {raw.arrays[str(key)].shape[:2] for key, _ in given}
    if not all(whole) or len(sizes) != 1:
        raise ConverterError(
            "EQ203",
            raw.subject,
            expected="arrays (sequences, steps, ...) of one size for each input that is not a state",
            got=", ".join(f"`{key}` {raw.arrays[str(key)].shape}" for key, _ in given),
            hint="repeat what stays the same in a sequence for each step; --state INPUT=OUTPUT names a state",
        )
    ((count, steps),) = sizes
    arrays = {}
    for name, array in raw.arrays.items():
        position = keys.index(name) if name in keys else -1
        if array.shape[:2] == (count, steps) and (
            position not in states or _is_sequence(array, inputs[position])
        ):
            arrays[name] = array.reshape(count * steps, *array.shape[2:])
        else:
            arrays[name] = np.repeat(array, steps, axis=0)
    labels = raw.labels
    if labels is not None and labels.shape[:2] == (count, steps):
        labels = labels.reshape(count * steps, *labels.shape[2:])
    columns = {name: _of_steps(column, count, steps) for name, column in raw.columns.items()}
    ids = raw.sequence_ids
    if ids is None:
        ids = np.repeat(np.arange(count), steps)
    elif ids.shape in {(count,), (count, steps)}:  # parts of one id follow each other
        ids = np.repeat(ids, steps) if ids.ndim == 1 else ids.ravel()
    note = f"{raw.subject}: arrays of shape ({count}, {steps}, ...) are {count} sequences of {steps} steps"
    return replace(
        raw, arrays=arrays, labels=labels, sequence_ids=ids, columns=columns, notes=(*raw.notes, note)
    )


def _of_steps(column: Array, count: int, steps: int) -> Array:
    """Return a column with a value for each step: a value of a whole sequence is that of all its steps."""
    if column.shape[:2] == (count, steps):
        return column.reshape(count * steps, *column.shape[2:])
    return np.repeat(column, steps, axis=0) if column.shape[:1] == (count,) else column


def _is_sequence(array: Array, tensor: TensorInfo) -> bool:
    """Return whether an array has one more axis than one of single samples."""
    if fits(array.shape[1:], tensor.shape[1:]) or fills_input(array, tensor) or array.ndim < 2:
        return False
    one = bool(tensor.shape) and tensor.shape[0] in (1, -1)
    return fits(array.shape[2:], tensor.shape[1:] if one else tensor.shape)
