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


class Backend(StrEnum):
    """Which library quantizes; `auto` uses TensorFlow if litert-quantizer leaves an operation float."""

    AUTO = "auto"
    LITERT = "litert"
    TENSORFLOW = "tensorflow"


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
        float_ops: operations that stay float in a mixed model, by the name of their first output tensor.
        int16_ops: operations of an int8 model that compute in int16, by the name of their first output
            tensor; None for the statistics of normalizations.
        int8_ops: operations with int8 weights in an int4 model, by the name of their first output tensor.
        int4_sqnr_db: for an int4 model without int8_ops: as many operations get 4-bit weights as keep this
            SQNR at the logits on held-out samples; 0 gives them to all that the runtime can run.
        prune: `magnitude:RATIO` or `channels:RATIO`; None does not prune.
        epochs: of re-tuning after pruning; None derives the number from the size of the data.
        distill: re-tune towards the unpruned model's outputs instead of labels.
        ranges: (tensor, low, high) of activations whose ranges training learned (`edgeq tune`); they replace
            calibration.
        seed: of all randomness: held-out splits, re-tuning.
        signature: which signature of the source to convert; empty for its only or usual one.
        shapes: (input, sizes) of the source's inputs with open dimensions.
    """

    scheme: Scheme
    io: str = ""
    calibrator: str = "auto"
    bias_correction: Switch = Switch.AUTO
    equalization: Switch = Switch.AUTO
    backend: Backend = Backend.AUTO
    float_ops: tuple[str, ...] = ()
    int16_ops: tuple[str, ...] | None = None
    int8_ops: tuple[str, ...] = ()
    int4_sqnr_db: float = 20.0
    prune: str | None = None
    epochs: int | None = None
    distill: bool = False
    ranges: tuple[tuple[str, float, float], ...] = ()
    seed: int = 0
    signature: str = ""
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()

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
        if self.float_ops and self.scheme is not Scheme.INT8_MIXED:
            raise ValueError(f"float_ops: only the scheme int8-mixed has them, not {self.scheme}")
        if self.int16_ops and self.scheme not in WITH_INT16_OPS:
            raise ValueError(f"int16_ops: only {', '.join(WITH_INT16_OPS)} have them, not {self.scheme}")
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
}


def _read(key: str, value: Any) -> Any:
    if key in _ENUMS:
        known = [item.value for item in _ENUMS[key]]
        if value not in known:
            raise ValueError(f"{key}: expected one of {', '.join(known)}, got {value!r}")
        return _ENUMS[key](value)
    if key == "int16_ops" and value is None:
        return None
    if key in {"float_ops", "int8_ops", "int16_ops"}:
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
            raise ValueError(f"{key}: expected a list of names, got {value!r}")
        return tuple(value)
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
    if key in {"io", "calibrator", "signature"} and not isinstance(value, str):
        raise ValueError(f"{key}: expected text, got {value!r}")
    return value


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
