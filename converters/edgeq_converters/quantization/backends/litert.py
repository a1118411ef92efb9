"""Quantize with litert-quantizer: the adapter from our recipes and ranges to that library.

The library's own `calibrate()` is not used: its moving average depends on the order of the samples, and it
silently calibrates on nothing when given a generator.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping
from importlib import import_module
from typing import Any

from edgeq_converters.calibration.ranges import TensorRange
from edgeq_converters.data.files import missing
from edgeq_converters.errors import ConverterError, other_schemes
from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.model import Model
from edgeq_converters.quantization import int16_regions
from edgeq_converters.quantization.repair import repaired
from edgeq_converters.recipe import Recipe
from edgeq_converters.values import Scheme

_NAMES = ("litert_quantizer", "ai_edge_quantizer")  # the library was renamed in 2026
_WEIGHT_OPS = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE", "EMBEDDING_LOOKUP")
INT4_OPS = ("FULLY_CONNECTED", "CONV_2D")
"""Operations that the library can give int4 weights together with int8 activations."""


def _library(module: str) -> Any:
    for name in _NAMES:
        try:
            return import_module(f"{name}.{module}")
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith(name):
                raise
    raise missing("litert-quantizer")


def known_ops() -> frozenset[str]:
    """Return the kinds of operations, as the schema names them, that the library can quantize."""
    from ai_edge_litert import schema_py_generated as schema

    codes = set(_library("utils.tfl_flatbuffer_utils").TFL_OP_CODE_TO_NAME)
    return frozenset(name for name, number in vars(schema.BuiltinOperator).items() if number in codes)


def quantize(
    model: Model,
    *,
    recipe: Recipe,
    ranges: Mapping[str, TensorRange] | None,
    int4_ops: Collection[str] = INT4_OPS,
) -> Model:
    """Return the quantized model.

    Args:
        model: a normalized float model.
        ranges: of every activation, if the scheme needs them. They may include weights, whose range is
            otherwise that of their values.
        int4_ops: kinds of operations that get int4 weights under the scheme int4.

    Raises:
        ConverterError: EQ308 the library refuses the model, or has no 16-bit form of an operation.
    """
    engine = _library("quantizer").Quantizer(model.data)
    if recipe.scheme is Scheme.FLOAT16:
        _cast_to_float16(engine)
    elif recipe.scheme is Scheme.DYNAMIC:
        engine.load_quantization_recipe(_library("recipe").dynamic_wi8_afp32())
    else:
        _static(engine, model, recipe=recipe, int4_ops=int4_ops)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # its own interpreter keeps all tensors
            result = engine.quantize(
                {name: {"min": each.low, "max": each.high} for name, each in ranges.items()}
                if ranges
                else None,
                enable_progress_report=False,
            )
    except (ValueError, RuntimeError, KeyError, IndexError, TypeError, NotImplementedError) as error:
        short = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ConverterError(
            "EQ308",
            model.subject,
            f"the quantizer refused the model ({short})",
            hint=other_schemes(recipe.scheme),
        ) from error
    quantized = model.with_data(bytes(result.quantized_model))
    return repaired(quantized) if recipe.scheme.needs_ranges else quantized


def _static(engine: Any, model: Model, *, recipe: Recipe, int4_ops: Collection[str]) -> None:
    # The presets' "*" includes the virtual operations INPUT and OUTPUT, so that these become integers too.
    presets = _library("recipe")
    wide = recipe.scheme is Scheme.INT16X8
    engine.load_quantization_recipe(presets.static_wi8_ai16() if wide else presets.static_wi8_ai8())
    if recipe.scheme is Scheme.INT4:
        for name in int4_ops:
            engine.add_static_config(".*", _op(name), activation_num_bits=8, weight_num_bits=4)
            for kept in recipe.int8_ops:
                scope = f"^{re.escape(kept)}(;|$)"
                engine.add_static_config(scope, _op(name), activation_num_bits=8, weight_num_bits=8)
    for scope, kind in _scopes(model, int16_regions.operations(model, recipe)):
        try:
            engine.add_static_config(scope, _op(kind), activation_num_bits=16, weight_num_bits=8)
        except ValueError as error:
            raise ConverterError(
                "EQ308",
                model.subject,
                f"litert-quantizer has no 16-bit form of {kind}",
                hint=f"name other operations than {kind} with --int16",
            ) from error
    if recipe.core_io == "float32":
        for border in ("INPUT", "OUTPUT"):
            engine.update_quantization_recipe(".*", _op(border), algorithm_key=_algorithms().NO_QUANTIZE)
    if recipe.float_ops:
        _keep_float(engine, model, recipe.float_ops)


def _keep_float(engine: Any, model: Model, float_ops: Collection[str]) -> None:
    for scope, kind in _scopes(model, float_ops):
        engine.update_quantization_recipe(scope, _op(kind), algorithm_key=_algorithms().NO_QUANTIZE)


def _scopes(model: Model, names: Collection[str]) -> list[tuple[str, str]]:
    """Return (the expression that matches its name, its kind) of each named operation that is known."""
    known = known_ops()
    scopes = []
    for operator in model.graph.operators:
        name = tflite_file.operation_name(model.graph, operator)
        kind = tflite_file.op_name(model.parsed, operator)
        if name in names and kind in known:
            # Match the kind too: the virtual OUTPUT operation has the name of the last operation's output.
            scopes.append((f"^{re.escape(name)}(;|$)", kind))
    return scopes


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
    # The schema's TRANSPOSE_CONV is CONV_2D_TRANSPOSE in the library.
    return _library("qtyping").TFLOperationName["CONV_2D_TRANSPOSE" if name == "TRANSPOSE_CONV" else name]


def _algorithms() -> Any:
    return _library("algorithm_manager").AlgorithmName
