"""Quantize with TensorFlow, the second backend, for operations that litert-quantizer does not know.

This is the last pass of TFLiteConverter, applied to any float .tflite. It reads ranges from the file, where
TensorFlow's calibrator would write them; we write our own there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np

from edgeq_converters.calibration.ranges import Ranges, TensorRange
from edgeq_converters.data.files import missing
from edgeq_converters.data.samples import Samples
from edgeq_converters.errors import ConverterError, other_schemes
from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.edit import Editor
from edgeq_converters.graph.interpreter import batches
from edgeq_converters.graph.model import Model
from edgeq_converters.quantization.repair import repaired
from edgeq_converters.recipe import Recipe
from edgeq_converters.values import Scheme

NAME = "tensorflow"
_LSTMS = frozenset({"UNIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_LSTM", "LSTM"})
_SQUASHING = frozenset({"LOGISTIC", "TANH", "SOFTMAX"})
"""Operations whose 16-bit kernels give values in steps of 1/32768."""
_INNER = 5  # tensors inside an LSTM: its four gates, and the hidden state before the projection


def is_installed() -> bool:
    """Return whether TensorFlow can be imported, without importing it."""
    return find_spec("tensorflow") is not None


def quantize(model: Model, *, recipe: Recipe, ranges: Mapping[str, TensorRange]) -> Model:
    """Return the quantized model.

    Args:
        model: a normalized float model.
        ranges: of every activation, and the `hidden_ranges` of an LSTM.

    Raises:
        ConverterError: EQ104 TensorFlow is not installed, EQ308 it refuses the model.
    """
    mlir, types, dtypes = _tensorflow()
    integer = types.QUANTIZED_INT16 if recipe.scheme is Scheme.INT16X8 else types.QUANTIZED_INT8
    kinds = {"int8": dtypes.int8, "int16": dtypes.int16, "float32": dtypes.float32}
    try:
        quantized = bytes(
            mlir(
                _with_ranges(model, ranges, symmetric=recipe.scheme is Scheme.INT16X8).data,
                fully_quantize=recipe.core_io != "float32",
                inference_type=integer,
                input_data_type=kinds[recipe.core_io],
                output_data_type=kinds[recipe.core_io],
                denylisted_nodes=list(recipe.float_ops) or None,
            )
        )
    except Exception as error:  # TensorFlow raises whatever its C++ code throws
        short = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ConverterError(
            "EQ308",
            model.subject,
            f"TensorFlow's quantizer refused the model ({short})",
            hint=other_schemes(recipe.scheme),
        ) from error
    return repaired(model.with_data(quantized))


def hidden_ranges(model: Model, samples: Samples) -> Ranges:
    """Return the ranges of the tensors inside the model's LSTMs; empty if it has none.

    Only TensorFlow's own calibrator sees inside such an operation. It gives the extremes.

    Raises:
        ConverterError: EQ104 TensorFlow is not installed, EQ308 it cannot run the model.
    """
    if not has_lstm(model):
        return {}
    _tensorflow()
    from tensorflow.lite.python.optimize.calibrator import Calibrator

    editor = Editor(model)
    _add_inner_tensors(editor.parsed)
    outer = {tflite_file.tensor_name(tensor) for _, tensor in tflite_file.activations(editor.parsed)}
    try:
        calibrator = Calibrator(editor.pack().data)

        def rows() -> Iterator[list[Any]]:
            for number, (batch, _) in enumerate(batches(samples, model.inputs)):
                if number and samples.begins_at(number):
                    calibrator._calibrator.Prepare()  # noqa: SLF001 # it resets the variables; nothing public does
                yield [np.ascontiguousarray(row) for row in batch]

        calibrated = calibrator.calibrate(rows)
    except (ValueError, RuntimeError) as error:
        raise ConverterError(
            "EQ308", model.subject, f"TensorFlow cannot calibrate the model ({error})"
        ) from error
    return {
        name: TensorRange(
            low=np.asarray(tensor.quantization.min[0], np.float32),
            high=np.asarray(tensor.quantization.max[0], np.float32),
        )
        for tensor in model.with_data(bytes(calibrated)).graph.tensors
        if (name := tflite_file.tensor_name(tensor)) not in outer
        and tensor.quantization is not None
        and tensor.quantization.min is not None
        and len(tensor.quantization.min) == 1
    }


def has_lstm(model: Model) -> bool:
    """Return whether the model has LSTM operations, whose inner tensors need ranges."""
    return any(tflite_file.op_name(model.parsed, operator) in _LSTMS for operator in model.graph.operators)


def _add_inner_tensors(parsed: Any) -> None:
    """Give each LSTM the tensors for its inner values, which a float model lacks."""
    from ai_edge_litert import schema_py_generated as schema

    graph = parsed.subgraphs[0]
    for number, operator in enumerate(graph.operators):
        missing_all = operator.intermediates is None or not len(operator.intermediates)
        if missing_all and tflite_file.op_name(parsed, operator) in _LSTMS:
            operator.intermediates = []
            for part in range(_INNER):
                tensor = schema.TensorT()
                tensor.name, tensor.shape, tensor.buffer = b"lstm%d.inner%d" % (number, part), [], 0
                tensor.type = schema.TensorType.FLOAT32
                operator.intermediates.append(len(graph.tensors))
                graph.tensors.append(tensor)


def _with_ranges(model: Model, ranges: Mapping[str, TensorRange], *, symmetric: bool) -> Model:
    from ai_edge_litert import schema_py_generated as schema

    editor = Editor(model)
    _add_inner_tensors(editor.parsed)
    graph = editor.parsed.subgraphs[0]
    squashed = {
        index
        for operator in graph.operators
        if symmetric and tflite_file.op_name(editor.parsed, operator) in _SQUASHING
        for index in tflite_file.index_list(operator.outputs)
    }
    for index, tensor in enumerate(graph.tensors):
        given = ranges.get(tflite_file.tensor_name(tensor))
        if given is not None and tflite_file.type_name(tensor) == "FLOAT32":
            if tflite_file.is_constant(editor.parsed, tensor):
                continue  # TensorFlow computes the ranges of weights itself
            tensor.quantization = tensor.quantization or schema.QuantizationParametersT()
            low, high = float(np.ravel(given.low)[0]), float(np.ravel(given.high)[0])
            widest = max(abs(low), abs(high))
            # The 16-bit kernels require a zero point of 0, which TensorFlow's pass does not ensure.
            tensor.quantization.min = [-widest if symmetric else low]
            tensor.quantization.max = [widest if symmetric else high]
            if index in squashed:
                tensor.quantization.min, tensor.quantization.max = [-1.0], [1.0 - 2.0**-15]
    return editor.pack()


def _tensorflow() -> tuple[Any, Any, Any]:
    try:
        from tensorflow.lite.python import convert
        from tensorflow.python.framework import dtypes
    except ImportError as error:
        raise missing("TensorFlow") from error
    return convert.mlir_quantize, convert._types_pb2, dtypes  # noqa: SLF001 # the types have no public name
