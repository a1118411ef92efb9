"""Convert, calibrate and tune models; every run is recorded with its lineage.

from edgeq.conversion import convert
convert(Path("model.keras"), Path("model.tflite"), scheme="int8", calibration=Path("calibration.npz"))
"""

from __future__ import annotations

from edgeq.conversion.calibrate import Calibrated, calibrate, merge_calibrations
from edgeq.conversion.conversion import Conversion, convert
from edgeq.conversion.qat import Tuned, tune
from edgeq.conversion.recipes import load_recipe, recipe_of, save_recipe
from edgeq_converters.recipe import Backend, Recipe, Switch
from edgeq_converters.values import ModelInfo, OpKind, OpLine, Scheme, TensorInfo

__all__ = [
    "Backend",
    "Calibrated",
    "Conversion",
    "ModelInfo",
    "OpKind",
    "OpLine",
    "Recipe",
    "Scheme",
    "Switch",
    "TensorInfo",
    "Tuned",
    "calibrate",
    "convert",
    "load_recipe",
    "merge_calibrations",
    "recipe_of",
    "save_recipe",
    "tune",
]
