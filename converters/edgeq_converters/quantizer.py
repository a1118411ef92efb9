"""The one module that knows litert-quantizer: a scheme and our ranges in, a quantized .tflite out.

Its own `calibrate()` is never used: it is an order-dependent moving average and silently empty on generators.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from edgeq_converters.errors import ConverterError
from edgeq_converters.sample_files import missing
from edgeq_converters.values import Scheme

_NAMES = ("litert_quantizer", "ai_edge_quantizer")  # the library was renamed in 2026
_WEIGHT_OPS = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE", "EMBEDDING_LOOKUP")


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
    data: bytes, *, scheme: Scheme, io: str, ranges: Mapping[str, Any] | None, subject: str
) -> bytes:
    """Return the quantized model.

    Args:
        data: a float .tflite with unique tensor names.
        io: `int8` or `float32` inputs and outputs; of the scheme int8 only.
        ranges: {tensor: {min, max}} of every activation; of the scheme int8 only.

    Raises:
        ConverterError: EQ308 when the library refuses the model.
    """
    engine = _library("quantizer").Quantizer(data)
    if scheme is Scheme.FLOAT16:
        _cast_to_float16(engine)
    elif scheme is Scheme.DYNAMIC:
        engine.load_quantization_recipe(_library("recipe").dynamic_wi8_afp32())
    else:
        # Its "*" takes in the virtual operations INPUT and OUTPUT: the borders become int8 too.
        engine.load_quantization_recipe(_library("recipe").static_wi8_ai8())
        if io == "float32":
            for border in ("INPUT", "OUTPUT"):
                engine.update_quantization_recipe(".*", _op(border), algorithm_key=_algorithms().NO_QUANTIZE)
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
    return _library("qtyping").TFLOperationName[name]


def _algorithms() -> Any:
    return _library("algorithm_manager").AlgorithmName
