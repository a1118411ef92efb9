"""Find the array of each model input: by name, or by position; no array feeds two inputs."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

POSITION = "#{}"
"""Key of an array that was given without a name. No input is called like this."""

_POSITIONAL = (POSITION, "input_{}", "arr_{}")
"""Keys of arrays by position; numpy.savez writes the last one for arrays without a name."""


def plain(name: str) -> str:
    """Return an input's name without what TensorFlow adds: `image` for `serving_default_image:0`."""
    return name.removeprefix("serving_default_").split(":")[0]


def names_an_input(name: str) -> bool:
    """Return whether an array of this name feeds an input of any name: `x`, or one by position."""
    return name == "x" or re.fullmatch(r"(input|arr)_\d+", name) is not None


def pair(inputs: Sequence[str], arrays: Collection[str]) -> tuple[str, ...] | None:
    """Return the array of each input, each array once; None where an input has none.

    If every input finds an array of its name, names decide; else, if there is an array for every position,
    positions decide; else the inputs without an array of their name take that of their position. So the
    arrays `input_0` and `input_1` feed the inputs `input_1` and `input_2` in this order. A single input also
    takes an array `x`, or the only array.

    Args:
        inputs: names, in the model's order.
        arrays: names in the data.
    """
    named = [by_name(name, inputs, arrays) for name in inputs]
    if None not in named:
        return _distinct(named)
    for pattern in _POSITIONAL:
        keys = [pattern.format(index) for index in range(len(inputs))]
        if all(key in arrays for key in keys):
            return tuple(keys)
    if len(inputs) == 1:
        return ("x",) if "x" in arrays else tuple(arrays) if len(arrays) == 1 else None
    return _distinct([key or _by_position(index, arrays) for index, key in enumerate(named)])


def by_name(name: str, inputs: Sequence[str], arrays: Collection[str]) -> str | None:
    """Return the key of an array that is called like an input; None where there is none."""
    if name in arrays:
        return name
    # Another input may have this very name in full.
    return plain(name) if plain(name) in arrays and plain(name) not in inputs else None


def _by_position(index: int, arrays: Collection[str]) -> str | None:
    return next((key for pattern in _POSITIONAL if (key := pattern.format(index)) in arrays), None)


def _distinct(keys: Sequence[str | None]) -> tuple[str, ...] | None:
    known = tuple(key for key in keys if key is not None)
    return known if len(set(known)) == len(keys) else None
