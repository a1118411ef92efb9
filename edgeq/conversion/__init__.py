"""Conversion as edgeq's users call it: the converters with edgeq's errors.

from edgeq.conversion import convert
convert(Path("model.keras"), Path("model.tflite"), scheme="int8", calibration=Path("calibration.npz"))
"""

from __future__ import annotations

from edgeq.conversion.conversion import Conversion, convert
from edgeq_converters.recipe import Backend, Recipe, Switch
from edgeq_converters.values import ModelInfo, OpKind, OpLine, Scheme, TensorInfo

__all__ = [
    "Backend",
    "Conversion",
    "ModelInfo",
    "OpKind",
    "OpLine",
    "Recipe",
    "Scheme",
    "Switch",
    "TensorInfo",
    "convert",
]
