"""The recipe: everything that decides what a conversion gives, as data that can be kept and read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from edgeq_converters.values import Scheme

SCHEMA = "edgeq.recipe/1"


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
        io: type of the inputs and outputs of an integer model: `int8` or `float32`.
        calibrator: how a tensor's histogram becomes its range; a name of `calibrators.CALIBRATORS`, with its
            parameter after a colon where it takes one (`percentile:99.99`).
        bias_correction: sequential correction of biases and per-channel scales.
        equalization: cross-layer equalization of weights before calibration.
        float_ops: operations that stay float in a mixed model, by the name of their first output tensor.
        seed: of everything random: held-out splits, re-tuning.
    """

    scheme: Scheme
    io: str = "int8"
    calibrator: str = "minmax"
    bias_correction: Switch = Switch.OFF
    equalization: Switch = Switch.OFF
    backend: Backend = Backend.AUTO
    float_ops: tuple[str, ...] = ()
    seed: int = 0

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
        return cls(
            **{
                **given,
                "scheme": Scheme(given["scheme"]),
                "bias_correction": Switch(given.get("bias_correction", Switch.OFF)),
                "equalization": Switch(given.get("equalization", Switch.OFF)),
                "backend": Backend(given.get("backend", Backend.AUTO)),
                "float_ops": tuple(given.get("float_ops", ())),
            }
        )
