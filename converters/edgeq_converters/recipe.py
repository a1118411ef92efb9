"""The recipe: everything that decides what a conversion gives, as data that can be kept and read back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from edgeq_converters.values import Scheme

SCHEMA = "edgeq.recipe/1"


_OF_TENSORFLOW = (Scheme.INT8, Scheme.INT16X8, Scheme.INT8_MIXED)


class Switch(StrEnum):
    """Whether a technique is used; `auto` uses it where it helps on samples that were held out."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class Backend(StrEnum):
    """Which library quantizes; `auto` takes TensorFlow's where litert-quantizer leaves something float."""

    AUTO = "auto"
    LITERT = "litert"
    TENSORFLOW = "tensorflow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a model is converted. The same recipe, source and data give the same bytes.

    Attributes:
        io: type of the inputs and outputs: `float32`, or of an integer model `int8` (`int16` of int16x8);
            what the scheme has by default where nothing is said.
        calibrator: how a tensor's histogram becomes its range; a name of `calibrators.CALIBRATORS`, with its
            parameter after a colon where it takes one (`percentile:99.99`).
        bias_correction: sequential correction of biases and per-channel scales.
        equalization: cross-layer equalization of weights before calibration.
        float_ops: operations that stay float in a mixed model, by the name of their first output tensor.
        int8_ops: operations whose weights stay int8 in an int4 model, by the name of their first output.
        int4_sqnr_db: of an int4 model whose int8_ops are left open: as many operations get weights of 4 bits
            as leave this much of SQNR at the logits on held-out samples; 0 takes all that the runtime runs.
        prune: `magnitude:RATIO` or `channels:RATIO` (see pruning/request.py); None leaves the model whole.
        epochs: of re-tuning after pruning; None lets their number follow from the size of the data.
        distill: re-tune towards the unpruned model's outputs instead of labels.
        ranges: (tensor, low, high) of activations whose ranges were learned (`edgeq tune`): they are taken
            instead of calibrated ones.
        seed: of everything random: held-out splits, re-tuning.
    """

    scheme: Scheme
    io: str = ""
    calibrator: str = "auto"
    bias_correction: Switch = Switch.AUTO
    equalization: Switch = Switch.AUTO
    backend: Backend = Backend.AUTO
    float_ops: tuple[str, ...] = ()
    int8_ops: tuple[str, ...] = ()
    int4_sqnr_db: float = 20.0
    prune: str | None = None
    epochs: int | None = None
    distill: bool = False
    ranges: tuple[tuple[str, float, float], ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.io:
            object.__setattr__(self, "io", self.scheme.io_types[0])

    def check(self) -> None:
        """Check what can be told without a model.

        Raises:
            ValueError: starts with the key that is wrong.
        """
        if self.io not in self.scheme.io_types:
            raise ValueError(
                f"io: the scheme {self.scheme} has inputs and outputs of {' or '.join(self.scheme.io_types)},"
                f" not {self.io}"
            )
        if self.float_ops and self.scheme is not Scheme.INT8_MIXED:
            raise ValueError(f"float_ops: only the scheme int8-mixed has any, not {self.scheme}")
        if self.int8_ops and self.scheme is not Scheme.INT4:
            raise ValueError(f"int8_ops: only the scheme int4 has any, not {self.scheme}")
        if self.backend is Backend.TENSORFLOW and self.scheme not in _OF_TENSORFLOW:
            raise ValueError(f"backend: tensorflow makes {', '.join(_OF_TENSORFLOW)}, not {self.scheme}")
        if self.scheme.needs_ranges:
            from edgeq_converters.calibration.calibrators import AUTO, calibrator_of

            try:
                _ = self.calibrator == AUTO or calibrator_of(self.calibrator)
            except ValueError as error:
                raise ValueError(f"calibrator: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as `edgeq.recipe/1`."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Recipe:
        """Return the recipe of a document.

        Raises:
            ValueError: another schema, an unknown key, or a value that is none; says which.
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
    if key in {"float_ops", "int8_ops"}:
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
    if key in {"io", "calibrator"} and not isinstance(value, str):
        raise ValueError(f"{key}: expected text, got {value!r}")
    return value


def _ranges(value: Any) -> tuple[tuple[str, float, float], ...]:
    try:
        found = tuple((name, float(low), float(high)) for name, low, high in value)
    except (TypeError, ValueError):
        found = None
    if found is None or not all(
        isinstance(name, str) and math.isfinite(high - low) and low <= 0.0 <= high
        for name, low, high in found
    ):
        raise ValueError("ranges: expected [tensor, low, high] with low <= 0 <= high for each tensor")
    return found
