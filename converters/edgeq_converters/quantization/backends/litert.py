"""The one module that knows litert-quantizer: a recipe and our ranges in, a quantized .tflite out.

Its own `calibrate()` is never used: it is an order-dependent moving average and silently empty on generators.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from importlib import import_module
from typing import Any

from edgeq_converters.data.sample_files import missing
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import tflite_file
from edgeq_converters.recipe import Recipe
from edgeq_converters.values import Scheme

_NAMES = ("litert_quantizer", "ai_edge_quantizer")  # the library was renamed in 2026
_WEIGHT_OPS = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE", "EMBEDDING_LOOKUP")
INT4_OPS = ("FULLY_CONNECTED", "CONV_2D")
"""What the library gives int4 weights beside int8 activations."""


def _library(module: str) -> Any:
    for name in _NAMES:
        try:
            return import_module(f"{name}.{module}")
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith(name):
                raise
    raise missing("litert-quantizer")


def known_ops() -> frozenset[str]:
    """Return the schema names of the operations that the library can quantize."""
    from ai_edge_litert import schema_py_generated as schema

    codes = set(_library("utils.tfl_flatbuffer_utils").TFL_OP_CODE_TO_NAME)
    return frozenset(name for name, number in vars(schema.BuiltinOperator).items() if number in codes)


def quantize(
    data: bytes,
    *,
    recipe: Recipe,
    ranges: Mapping[str, Any] | None,
    subject: str,
    int4_ops: Collection[str] = INT4_OPS,
) -> bytes:
    """Return the quantized model.

    Args:
        data: a float .tflite with unique tensor names.
        ranges: {tensor: {min, max}} of every activation, where the scheme needs them; also of weights, whose
            own extremes are taken otherwise.
        int4_ops: operations that get int4 weights under the scheme int4.

    Raises:
        ConverterError: EQ308 when the library refuses the model.
    """
    engine = _library("quantizer").Quantizer(data)
    if recipe.scheme is Scheme.FLOAT16:
        _cast_to_float16(engine)
    elif recipe.scheme is Scheme.DYNAMIC:
        engine.load_quantization_recipe(_library("recipe").dynamic_wi8_afp32())
    else:
        _static(engine, data, recipe=recipe, int4_ops=int4_ops, subject=subject)
    try:
        result = engine.quantize(dict(ranges) if ranges else None, enable_progress_report=False)
    except (ValueError, RuntimeError, KeyError, IndexError, TypeError, NotImplementedError) as error:
        short = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ConverterError(
            "EQ308",
            subject,
            f"the quantizer refused the model ({short})",
            hint="use --scheme float16 or float32",
        ) from error
    return bytes(result.quantized_model)


def _static(engine: Any, data: bytes, *, recipe: Recipe, int4_ops: Collection[str], subject: str) -> None:
    # Its "*" takes in the virtual operations INPUT and OUTPUT: the borders become integers too.
    presets = _library("recipe")
    wide = recipe.scheme is Scheme.INT16X8
    engine.load_quantization_recipe(presets.static_wi8_ai16() if wide else presets.static_wi8_ai8())
    if recipe.scheme is Scheme.INT4:
        for name in int4_ops:
            engine.add_static_config(".*", _op(name), activation_num_bits=8, weight_num_bits=4)
            for kept in recipe.int8_ops:
                scope = f"^{re.escape(kept)}(;|$)"
                engine.add_static_config(scope, _op(name), activation_num_bits=8, weight_num_bits=8)
    if recipe.io == "float32":
        for border in ("INPUT", "OUTPUT"):
            engine.update_quantization_recipe(".*", _op(border), algorithm_key=_algorithms().NO_QUANTIZE)
    if recipe.float_ops:
        _keep_float(engine, data, recipe.float_ops, subject)


def _keep_float(engine: Any, data: bytes, float_ops: Collection[str], subject: str) -> None:
    model = tflite_file.parse(data, subject=subject)
    graph = model.subgraphs[0]
    known = known_ops()
    for operator in graph.operators:
        first = tflite_file.tensor_name(graph.tensors[operator.outputs[0]])
        kind = tflite_file.op_name(model, operator)
        if first in float_ops and kind in known:
            # By the operation's kind too: the model's output alone must not become float with the one before.
            scope = f"^{re.escape(first)}(;|$)"
            engine.update_quantization_recipe(scope, _op(kind), algorithm_key=_algorithms().NO_QUANTIZE)


def _cast_to_float16(engine: Any) -> None:
    types = _library("qtyping")
    config = types.OpQuantizationConfig(
        weight_tensor_config=types.TensorQuantizationConfig(num_bits=16, dtype=types.TensorDataType.FLOAT),
        compute_precision=types.ComputePrecision.FLOAT,
        explicit_dequantize=True,
    )
    for name in _WEIGHT_OPS:
        engine.update_quantization_recipe(".*", _op(name), config, algorithm_key=_algorithms().FLOAT_CASTING)


def _op(name: str) -> Any:
    # The schema says TRANSPOSE_CONV where the library says CONV_2D_TRANSPOSE.
    return _library("qtyping").TFLOperationName["CONV_2D_TRANSPOSE" if name == "TRANSPOSE_CONV" else name]


def _algorithms() -> Any:
    return _library("algorithm_manager").AlgorithmName
