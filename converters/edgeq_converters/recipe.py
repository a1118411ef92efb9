"""Recipes: all settings of a conversion, as a value that can be saved and read back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from edgeq_converters.values import IoTypes, Scheme

SCHEMA = "edgeq.recipe/1"
_OF_TENSORFLOW = (Scheme.INT8, Scheme.INT16X8, Scheme.INT8_MIXED)
WITH_INT16_OPS = (Scheme.INT8, Scheme.INT8_MIXED, Scheme.INT4)


class Switch(StrEnum):
    """Whether to use a technique; `auto` uses it if it helps on held-out samples."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class Effort(StrEnum):
    """How much a conversion tries before it chooses; a greater effort takes longer."""

    QUICK = "quick"
    STANDARD = "standard"
    BEST = "best"


class Backend(StrEnum):
    """Which library quantizes; `auto` uses TensorFlow if litert-quantizer leaves an operation float."""

    AUTO = "auto"
    LITERT = "litert"
    TENSORFLOW = "tensorflow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """The last operations of a model, with more bits than the others.

    Attributes:
        type: of their activations: `int16` or `float32`.
        ops: names of their first output tensors; empty for none.
    """

    type: str = "int16"
    ops: tuple[str, ...] = ()

    def __str__(self) -> str:
        count = "" if len(self.ops) == 1 else f" {len(self.ops)} operations from"
        return f"{self.type} in the last{count} `{self.ops[0]}`" if self.ops else "no tail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The settings of a conversion. The same recipe, source and data give the same bytes.

    Attributes:
        io: type of the inputs and outputs, or both types with a comma (`uint8,float32`): `float32`, or for an
            integer model `int8` or `uint8` (`int16` for int16x8); the scheme's default if empty.
        calibrator: how a tensor's range follows from its histogram: a name of `calibrators.CALIBRATORS`, with
            a parameter after a colon if it has one (`percentile:99.99`), or `auto`.
        bias_correction: sequential correction of weights and biases.
        equalization: cross-layer equalization of weights before calibration.
        float_ops: operations that stay float in a mixed model: each entry is the name of an operation's first
            output tensor, a pattern of such names with `*` and `?`, or `head`.
        allow_float: operations without an integer kernel stay float in an otherwise integer model, as they do
            in a mixed one.
        int16_ops: operations of an int8 model that compute in int16, named in the same ways; None for the
            statistics of normalizations.
        tail: the last operations of poor outputs, which compute in int16 or float; None chooses them by the
            loss and the latency on this machine.
        int8_ops: operations with int8 weights in an int4 model, named in the same ways.
        int4_sqnr_db: for an int4 model without int8_ops: as many operations get 4-bit weights as keep this
            SQNR at the logits on held-out samples; 0 gives them to all that the runtime can run.
        prune: `magnitude:RATIO` or `channels:RATIO,OPTION=VALUE`; None does not prune.
        epochs: of re-tuning after pruning; None derives the number from the size of the data.
        distill: re-tune towards the unpruned model's outputs instead of labels.
        loss: of re-tuning: a name, or a file or module and a function; empty is a classifier's cross-entropy.
        ranges: (tensor, low, high) of activations whose ranges training learned (`edgeq tune`); they replace
            calibration.
        effort: how much is tried where the recipe leaves a choice.
        seed: of all randomness: held-out splits, re-tuning.
        signature: which signature of the source to convert; empty for its only or usual one.
        shapes: (input, sizes) of the source's inputs with open dimensions.
        constants: (input, value) of inputs of an ONNX source that become constants.
        states: (input, output) of states: the output is the input's value at the next step.
    """

    scheme: Scheme
    io: str = ""
    calibrator: str = "auto"
    bias_correction: Switch = Switch.AUTO
    equalization: Switch = Switch.AUTO
    backend: Backend = Backend.AUTO
    float_ops: tuple[str, ...] = ()
    allow_float: bool = False
    int16_ops: tuple[str, ...] | None = None
    tail: Tail | None = None
    int8_ops: tuple[str, ...] = ()
    int4_sqnr_db: float = 20.0
    prune: str | None = None
    epochs: int | None = None
    distill: bool = False
    loss: str = ""
    ranges: tuple[tuple[str, float, float], ...] = ()
    effort: Effort = Effort.STANDARD
    seed: int = 0
    signature: str = ""
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    constants: tuple[tuple[str, float], ...] = ()
    states: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not self.io:
            object.__setattr__(self, "io", self.scheme.io_types[0])

    def check(self) -> None:
        """Check what can be checked without a model.

        Raises:
            ValueError: the message starts with the wrong key.
        """
        if not {self.types.inputs, self.types.outputs} <= set(self.scheme.io_types):
            raise ValueError(
                f"io: inputs and outputs of the scheme {self.scheme} are {' or '.join(self.scheme.io_types)},"
                f" not {self.io}"
            )
        if self.allow_float and not self.scheme.full_integer:
            raise ValueError(f"allow_float: only a full-integer scheme needs it, not {self.scheme}")
        if self.float_ops and (not self.scheme.needs_ranges or self.full_integer):
            raise ValueError(
                f"float_ops: only the scheme int8-mixed and allow_float have them, not {self.scheme}"
            )
        if self.int16_ops and self.scheme not in WITH_INT16_OPS:
            raise ValueError(f"int16_ops: only {', '.join(WITH_INT16_OPS)} have them, not {self.scheme}")
        if self.tail is not None and self.tail.ops and self.scheme not in WITH_INT16_OPS:
            raise ValueError(f"tail: only {', '.join(WITH_INT16_OPS)} have one, not {self.scheme}")
        if self.tail is not None and self.tail.type == "float32" and self.scheme is not Scheme.INT8_MIXED:
            raise ValueError(f"tail: only the scheme int8-mixed has one in float32, not {self.scheme}")
        if self.int8_ops and self.scheme is not Scheme.INT4:
            raise ValueError(f"int8_ops: only the scheme int4 has them, not {self.scheme}")
        if self.backend is Backend.TENSORFLOW and self.scheme not in _OF_TENSORFLOW:
            raise ValueError(f"backend: tensorflow supports {', '.join(_OF_TENSORFLOW)}, not {self.scheme}")
        if self.scheme.needs_ranges:
            # Imported here: numpy is too slow to load for a program that only reads a recipe.
            from edgeq_converters.calibration.calibrators import AUTO, calibrator_of

            try:
                _ = self.calibrator == AUTO or calibrator_of(self.calibrator)
            except ValueError as error:
                raise ValueError(f"calibrator: {error}") from None

    @property
    def types(self) -> IoTypes:
        """The types of the inputs and of the outputs."""
        return IoTypes.parse(self.io)

    @property
    def full_integer(self) -> bool:
        """Whether no operation may compute in float."""
        return self.scheme.full_integer and not self.allow_float

    @property
    def core_io(self) -> str:
        """The type of both that a quantizer makes; conversions at the border give the named types."""
        if self.types == IoTypes():
            return "float32"
        return "int16" if self.scheme is Scheme.INT16X8 else "int8"

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as a document `edgeq.recipe/1`."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Recipe:
        """Return the recipe of a document.

        Raises:
            ValueError: another schema, an unknown key, or an invalid value; the message says which.
        """
        if body.get("schema") != SCHEMA:
            raise ValueError(f"expected the schema {SCHEMA}, got {body.get('schema')!r}")
        known = {entry.name for entry in fields(cls)}
        given = {key: value for key, value in body.items() if key != "schema"}
        if unknown := sorted(set(given) - known):
            raise ValueError(f"unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}")
        if "scheme" not in given:
            raise ValueError("'scheme' is missing")
        return cls(**{key: _read(key, value) for key, value in given.items()})


_ENUMS: dict[str, type[StrEnum]] = {
    "scheme": Scheme,
    "bias_correction": Switch,
    "equalization": Switch,
    "backend": Backend,
    "effort": Effort,
}


def _read(key: str, value: Any) -> Any:
    if key in _ENUMS:
        known = [item.value for item in _ENUMS[key]]
        if value not in known:
            raise ValueError(f"{key}: expected one of {', '.join(known)}, got {value!r}")
        return _ENUMS[key](value)
    if key == "int16_ops" and value is None:
        return None
    if key == "allow_float" and not isinstance(value, bool):
        raise ValueError(f"allow_float: expected true or false, got {value!r}")
    if key in {"float_ops", "int8_ops", "int16_ops"}:
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
            raise ValueError(f"{key}: expected a list of names, got {value!r}")
        return tuple(value)
    if key == "tail":
        return _tail(value)
    if key == "int4_sqnr_db":
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0.0 <= value <= 200.0:
            raise ValueError(f"{key}: expected decibels from 0 to 200, got {value!r}")
        return float(value)
    if key == "ranges":
        return _ranges(value)
    if key == "seed" and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise ValueError(f"{key}: expected an integer from 0, got {value!r}")
    if key == "shapes":
        return _shapes(value)
    if key == "constants":
        return _constants(value)
    if key == "states":
        return _states(value)
    if key in {"io", "calibrator", "signature", "loss"} and not isinstance(value, str):
        raise ValueError(f"{key}: expected text, got {value!r}")
    return value


def _tail(value: Any) -> Tail | None:
    if value is None:
        return None
    given = value if isinstance(value, Mapping) else {}
    ops = given.get("ops")
    names = isinstance(ops, (list, tuple)) and all(isinstance(each, str) for each in ops)
    if set(given) != {"type", "ops"} or given["type"] not in ("int16", "float32") or not names:
        raise ValueError('tail: expected {"type": "int16" or "float32", "ops": [name, ...]}, or null')
    return Tail(type=given["type"], ops=tuple(ops or ()))


def _shapes(value: Any) -> tuple[tuple[str, tuple[int, ...]], ...]:
    try:
        shapes = tuple((name, tuple(sizes)) for name, sizes in value)
    except (TypeError, ValueError):
        shapes = None
    if shapes is None or not all(
        isinstance(name, str) and all(type(size) is int and size > 0 for size in sizes)
        for name, sizes in shapes
    ):
        raise ValueError("shapes: expected [input, [size, ...]] with sizes from 1 for each input")
    return shapes


def _constants(value: Any) -> tuple[tuple[str, float], ...]:
    try:
        constants = tuple((name, float(number)) for name, number in value)
    except (TypeError, ValueError):
        constants = None
    if constants is None or not all(
        isinstance(name, str) and math.isfinite(number) for name, number in constants
    ):
        raise ValueError("constants: expected [input, number] for each input")
    return constants


def _states(value: Any) -> tuple[tuple[str, str], ...]:
    try:
        states = tuple((given, taken) for given, taken in value)
    except (TypeError, ValueError):
        states = None
    if states is None or not all(isinstance(name, str) for pair in states for name in pair):
        raise ValueError("states: expected [input, output] for each state")
    return states


def _ranges(value: Any) -> tuple[tuple[str, float, float], ...]:
    try:
        ranges = tuple((name, float(low), float(high)) for name, low, high in value)
    except (TypeError, ValueError):
        ranges = None
    if ranges is None or not all(
        isinstance(name, str) and math.isfinite(high - low) and low <= 0.0 <= high
        for name, low, high in ranges
    ):
        raise ValueError("ranges: expected [tensor, low, high] with low <= 0 <= high for each tensor")
    return ranges
