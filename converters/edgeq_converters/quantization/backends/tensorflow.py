"""TensorFlow's quantizer as the second backend, for operations that litert-quantizer does not know.

It is the pass that TFLiteConverter ends with, run on any float .tflite: the ranges are written into the file
as the calibrator of TensorFlow would have left them, so that they can be ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np

from edgeq_converters.data.sample_files import missing
from edgeq_converters.data.samples import Samples
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import edit, inference, tflite_file
from edgeq_converters.recipe import Recipe
from edgeq_converters.values import Scheme

NAME = "tensorflow"
_LSTMS = frozenset({"UNIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_LSTM", "LSTM"})
_INNER = 5  # of the four gates, and of the hidden state before its projection


def is_installed() -> bool:
    """Return whether TensorFlow can be imported, without importing it."""
    return find_spec("tensorflow") is not None


def quantize(data: bytes, *, recipe: Recipe, ranges: Mapping[str, Any], subject: str) -> bytes:
    """Return the quantized model.

    Args:
        data: a float .tflite with unique tensor names.
        ranges: {tensor: {min, max}} of every activation, and the `hidden_ranges` of an LSTM.

    Raises:
        ConverterError: EQ104 no TensorFlow, EQ308 when it refuses the model.
    """
    mlir, types, dtypes = _tensorflow()
    integer = types.QUANTIZED_INT16 if recipe.scheme is Scheme.INT16X8 else types.QUANTIZED_INT8
    kinds = {"int8": dtypes.int8, "int16": dtypes.int16, "float32": dtypes.float32}
    try:
        return bytes(
            mlir(
                _with_ranges(data, ranges, symmetric=recipe.scheme is Scheme.INT16X8, subject=subject),
                fully_quantize=recipe.io != "float32",
                inference_type=integer,
                input_data_type=kinds[recipe.io],
                output_data_type=kinds[recipe.io],
                denylisted_nodes=list(recipe.float_ops) or None,
            )
        )
    except Exception as error:  # whatever its C++ threw
        short = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ConverterError(
            "EQ308",
            subject,
            f"TensorFlow's quantizer refused the model ({short})",
            hint="use --scheme dynamic or float16",
        ) from error


def hidden_ranges(data: bytes, samples: Samples, *, subject: str) -> dict[str, dict[str, Any]]:
    """Return {tensor: {min, max}} of what an LSTM keeps to itself, or nothing where the model has none.

    Only TensorFlow's own calibrator sees inside of such an operation; extremes are what it gives.

    Raises:
        ConverterError: EQ104 no TensorFlow, EQ308 when it cannot run the model.
    """
    model = tflite_file.parse(data, subject=subject)
    if not has_lstm(model):
        return {}
    _tensorflow()
    from tensorflow.lite.python.optimize.calibrator import Calibrator

    _open_lstms(model)
    inputs, _ = tflite_file.inputs_and_outputs(model)
    rows = [[np.ascontiguousarray(row) for row in batch] for batch, _ in inference.batches(samples, inputs)]
    seen = {tflite_file.tensor_name(tensor) for _, tensor in tflite_file.activations(model)}
    try:
        found = Calibrator(edit.pack(model)).calibrate(lambda: iter(rows))
    except (ValueError, RuntimeError) as error:
        raise ConverterError("EQ308", subject, f"TensorFlow cannot calibrate the model ({error})") from error
    tensors = tflite_file.parse(bytes(found), subject=subject).subgraphs[0].tensors
    return {
        name: {"min": np.float32(tensor.quantization.min[0]), "max": np.float32(tensor.quantization.max[0])}
        for tensor in tensors
        if (name := tflite_file.tensor_name(tensor)) not in seen
        and tensor.quantization is not None
        and tensor.quantization.min is not None
        and len(tensor.quantization.min) == 1
    }


def has_lstm(model: Any) -> bool:
    """Return whether the model has operations with values inside that need ranges."""
    return any(tflite_file.op_name(model, operator) in _LSTMS for operator in model.subgraphs[0].operators)


def _open_lstms(model: Any) -> None:
    """Give each LSTM the tensors for its inner values, which a float model has none of."""
    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    for number, operator in enumerate(graph.operators):
        has_none = operator.intermediates is None or not len(operator.intermediates)
        if has_none and tflite_file.op_name(model, operator) in _LSTMS:
            operator.intermediates = []
            for part in range(_INNER):
                tensor = schema.TensorT()
                tensor.name, tensor.shape, tensor.buffer = b"lstm%d.inner%d" % (number, part), [], 0
                tensor.type = schema.TensorType.FLOAT32
                operator.intermediates.append(len(graph.tensors))
                graph.tensors.append(tensor)


def _with_ranges(data: bytes, ranges: Mapping[str, Any], *, symmetric: bool, subject: str) -> bytes:
    from ai_edge_litert import schema_py_generated as schema

    model = tflite_file.parse(data, subject=subject)
    _open_lstms(model)
    for tensor in model.subgraphs[0].tensors:
        found = ranges.get(tflite_file.tensor_name(tensor))
        if found is not None and tflite_file.type_name(tensor) == "FLOAT32":
            if tflite_file.is_constant(model, tensor):
                continue  # of weights it takes the extremes itself
            tensor.quantization = tensor.quantization or schema.QuantizationParametersT()
            low, high = float(np.ravel(found["min"])[0]), float(np.ravel(found["max"])[0])
            widest = max(abs(low), abs(high))
            # The kernels of 16 bits take no zero point but 0, which the pass does not see to.
            tensor.quantization.min = [-widest if symmetric else low]
            tensor.quantization.max = [widest if symmetric else high]
    return edit.pack(model)


def _tensorflow() -> tuple[Any, Any, Any]:
    try:
        from tensorflow.lite.python import convert
        from tensorflow.python.framework import dtypes
    except ImportError as error:
        raise missing("TensorFlow") from error
    return convert.mlir_quantize, convert._types_pb2, dtypes
