"""Custom operations of public models: rewritten where builtin ones compute the same, else named."""

from __future__ import annotations

import struct

import numpy as np
import pytest

pytestmark = pytest.mark.convert
pytest.importorskip("ai_edge_litert")

from edgeq_converters.errors import ConverterError  # noqa: E402
from edgeq_converters.graph import tflite_file  # noqa: E402
from edgeq_converters.graph.interpreter import Interpreter  # noqa: E402
from edgeq_converters.graph.model import Model  # noqa: E402
from edgeq_converters.graph.rewrite.custom_operations import (  # noqa: E402
    TRANSPOSE_BIAS,
    UNKNOWN,
    with_builtin_operations,
)

from .graphs import Graph  # noqa: E402

SAME, VALID = 1, 2
HEIGHT, WIDTH, DEEP, OUT = 3, 4, 2, 3


def transposed(*, padding: int, kernel: int, strides: tuple[int, int], options: bytes | None = None) -> Model:
    """Return a model of the custom operation; strides are (height, width)."""
    random = np.random.default_rng(0)
    graph = Graph()
    x = graph.tensor("x", (1, HEIGHT, WIDTH, DEEP))
    shape = (OUT, kernel, kernel, DEEP)
    weights = graph.tensor("weights", shape, values=random.normal(size=shape))
    bias = graph.tensor("bias", (OUT,), values=random.normal(size=OUT))
    sizes = [
        length * stride if padding == SAME else (length - 1) * stride + kernel
        for length, stride in zip((HEIGHT, WIDTH), strides, strict=True)
    ]
    y = graph.tensor("y", (1, *sizes, OUT))
    graph.op(f"CUSTOM {TRANSPOSE_BIAS}", [x, weights, bias], [y])
    packed = struct.pack("<iii", padding, strides[1], strides[0]) if options is None else options
    graph.graph.operators[-1].customOptions = np.frombuffer(packed, np.uint8)
    return graph.ends([x], [y]).as_model()


def expected(model: Model, x: np.ndarray, *, padding: int, strides: tuple[int, int]) -> np.ndarray:
    """Return the transposed convolution by its definition: each input scatters the kernel into the output."""
    constants = [
        np.asarray(model.parsed.buffers[tensor.buffer].data, np.uint8).tobytes()
        for tensor in model.graph.tensors[1:3]
    ]
    shape = tuple(int(size) for size in model.graph.tensors[1].shape)
    weights, bias = np.frombuffer(constants[0], "<f4").reshape(shape), np.frombuffer(constants[1], "<f4")
    kernel = shape[1]
    _, rows, columns, _ = model.outputs[0].shape
    whole = np.zeros((rows + 2 * kernel, columns + 2 * kernel, OUT))
    # SAME: what reaches beyond the output is cut, first half before, the larger half after.
    before = [max(kernel - stride, 0) // 2 if padding == SAME else 0 for stride in strides]
    for row in range(HEIGHT):
        for column in range(WIDTH):
            top = row * strides[0] - before[0] + kernel
            left = column * strides[1] - before[1] + kernel
            whole[top : top + kernel, left : left + kernel] += np.einsum(
                "ohwi,i->hwo", weights, x[0, row, column]
            )
    return np.asarray(whole[kernel : kernel + rows, kernel : kernel + columns] + bias)


@pytest.mark.parametrize("padding", [SAME, VALID])
@pytest.mark.parametrize(("kernel", "strides"), [(2, (2, 2)), (3, (2, 2)), (3, (1, 2)), (2, (1, 1))])
def test_a_transposed_convolution_with_bias_computes_its_definition(
    padding: int, kernel: int, strides: tuple[int, int]
) -> None:
    model = transposed(padding=padding, kernel=kernel, strides=strides)
    rewritten, notes = with_builtin_operations(model)
    assert [tflite_file.op_name(rewritten.parsed, each) for each in rewritten.graph.operators] == [
        "TRANSPOSE_CONV"
    ]
    assert len(notes) == 1
    x = np.random.default_rng(1).normal(size=(1, HEIGHT, WIDTH, DEEP)).astype(np.float32)
    interpreter = Interpreter(rewritten)
    interpreter.run([x])
    wanted_values = expected(model, x, padding=padding, strides=strides)
    np.testing.assert_allclose(interpreter.results()[0][0], wanted_values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options", [b"", b"\x01\x00", struct.pack("<iii", 0, 2, 2), struct.pack("<iii", 1, 0, 2)]
)
def test_options_that_make_no_sense_leave_the_operation(options: bytes) -> None:
    model = transposed(padding=SAME, kernel=2, strides=(2, 2), options=options)
    assert with_builtin_operations(model) == (model, ())


@pytest.mark.parametrize("name", sorted(UNKNOWN))
def test_other_known_operations_are_named_with_what_computes_them(name: str) -> None:
    graph = Graph()
    x, y = graph.tensor("x", (1, 4)), graph.tensor("y", (1, 4))
    graph.op(f"CUSTOM {name}", [x], [y])
    model = graph.ends([x], [y]).as_model()
    with pytest.raises(ConverterError, match=name) as caught:
        Interpreter(with_builtin_operations(model)[0])
    assert caught.value.code == "EQ323"
    assert "MediaPipe" in (caught.value.hint or "")


def test_other_models_stay_the_same_value() -> None:
    graph = Graph()
    x, y = graph.tensor("x", (1, 4)), graph.tensor("y", (1, 4))
    graph.op("RELU", [x], [y])
    model = graph.ends([x], [y]).as_model()
    assert with_builtin_operations(model) == (model, ())
