"""Models of one operation in each scheme, as a conversion would write them."""

from __future__ import annotations

from edgeq_converters.calibration.ranges import TensorRange
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import op_report, tflite_file
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.probe_models import model_of
from edgeq_converters.quantization import integer_io
from edgeq_converters.quantization.quantize import quantize
from edgeq_converters.recipe import Backend, Recipe
from edgeq_converters.values import WEIGHTED_OPERATIONS, OpKind, Scheme

SCHEMES = (
    Scheme.FLOAT32,
    Scheme.FLOAT16,
    Scheme.DYNAMIC,
    Scheme.INT8,
    Scheme.INT16X8,
    Scheme.INT4,
)
_OF_WEIGHTS = {Scheme.FLOAT16, Scheme.DYNAMIC, Scheme.INT4}


def is_probed(operation: str, scheme: Scheme) -> bool:
    """Return whether a scheme changes an operation; those of weights alone change those with weights."""
    return scheme not in _OF_WEIGHTS or operation in WEIGHTED_OPERATIONS


def variant(operation: str, scheme: Scheme) -> tuple[Model | None, str]:
    """Return (the model of an operation in a scheme, why there is none: empty where there is one).

    No data takes part: activations have the range -1 to 1, and speed does not depend on it.
    """
    model = model_of(operation)
    if scheme is Scheme.FLOAT32:
        return model, ""
    io = "int16" if scheme is Scheme.INT16X8 else ""
    recipe = Recipe(scheme=scheme, io=io, backend=Backend.LITERT, int16_ops=())
    ranges = {
        tflite_file.tensor_name(tensor): TensorRange.per_tensor(-1.0, 1.0)
        for _, tensor in tflite_file.activations(model.parsed)
    }
    try:
        made = quantize(model, recipe=recipe, ranges=ranges if scheme.needs_ranges else None).model
    except ConverterError as error:
        return None, f"the quantizer refuses it: {error.problem}"
    made = integer_io.with_unread_inputs(made, io=recipe.core_io)
    lines = op_report.op_lines(made)
    if scheme.full_integer and any(line.kind is not OpKind.INTEGER for line in lines):
        return None, "the quantizer leaves it in float"
    if scheme is Scheme.INT4 and not _has_int4(made):
        return None, "the runtime computes int4 weights of it wrongly, or the quantizer has none"
    return made, ""


def _has_int4(model: Model) -> bool:
    return any(tflite_file.type_name(tensor) == "INT4" for tensor in model.graph.tensors)
