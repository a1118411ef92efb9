"""Values of the sources: how to load one, an opened model, and the result: a float .tflite."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from edgeq_converters.sources.detect import SourceKind
from edgeq_converters.values import Interface, TensorInfo

SEED = "edgeq_seed"
"""The name of the tensors that stand for a random layer's seed."""
if TYPE_CHECKING:  # options and shapes are also read where no LiteRT is installed
    from edgeq_converters.graph.model import Model

Array = npt.NDArray[Any]
Reference = Callable[[Mapping[str, Array]], Mapping[str, Array]]
CheckInputs = Callable[[Sequence[TensorInfo]], object]
"""Called with a source's inputs before the slow part of loading it; raises where data does not fit them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """What a user says about a source that leaves something open.

    Attributes:
        signature: the one to convert, of several; empty leaves the choice open.
        shapes: (input, sizes) of inputs with open dimensions, the batch included where there is one.
        constants: (input, value) of inputs of an ONNX model that become constants.
    """

    signature: str = ""
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    constants: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A model that TensorFlow has loaded.

    Attributes:
        call: {input name: tensor} -> {output name: tensor}, outputs in the model's order.
        specs: (input name, its shape and type), in the model's order.
        keep: what must stay alive while the model is used.
        batch_is_first: whether the first axis of every input is the batch, also of an input with one axis.
        notes: remarks for the user.
        without_seeds: while it is entered, random layers draw no new seed: they get a tensor called SEED.
    """

    call: Callable[[Mapping[str, Any]], dict[str, Any]]
    specs: tuple[tuple[str, Any], ...]
    keep: Any
    batch_is_first: bool
    notes: tuple[str, ...] = ()
    without_seeds: Callable[[], AbstractContextManager[None]] = nullcontext


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A source as a float .tflite.

    Attributes:
        model: the float .tflite. A .tflite source is used as it is, except that float16 weights are widened.
        interface: the inputs and outputs that the source declares; None where only parity compares them.
        reference: runs the source on one batch: {input name: array of the .tflite's shape} -> {output name:
            array}; None for a .tflite source, which is its own reference.
        half: whether the source computes in float16, so that it is not as exact as the .tflite.
        layouts: {input name: axes} of the .tflite's inputs that are the source's transposed by these axes.
        tools: packages that took part, besides those of every conversion; `name==version` for one that is in
            another environment.
        notes: remarks for the user.
    """

    kind: SourceKind
    model: Model
    interface: Interface | None = None
    reference: Reference | None = None
    half: bool = False
    layouts: Mapping[str, tuple[int, ...]] | None = None
    tools: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
