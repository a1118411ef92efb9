"""Equalization across the gain of a normalization and across the values of an attention."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.convert
pytest.importorskip("ai_edge_litert")

from edgeq_converters.data.samples import Samples  # noqa: E402
from edgeq_converters.graph import edit, tflite_file  # noqa: E402
from edgeq_converters.graph.interpreter import Interpreter  # noqa: E402
from edgeq_converters.graph.model import Model  # noqa: E402
from edgeq_converters.graph.normalize import normalize  # noqa: E402
from edgeq_converters.progress import ignore  # noqa: E402
from edgeq_converters.quantization.equalization import equalize  # noqa: E402
from edgeq_converters.quantization.equalization.groups import find_groups  # noqa: E402

from .graphs import Graph  # noqa: E402

TOKENS, WIDTH, HEADS = 6, 8, 2
_HEAD = WIDTH // HEADS
_SPREAD = np.geomspace(0.02, 2.0, WIDTH).astype(np.float32)


def dense(graph: Graph, x: int, name: str, *, rows: np.ndarray | None = None) -> int:
    random = np.random.default_rng(len(name))
    weights = random.normal(size=(WIDTH, WIDTH)) * (1 if rows is None else rows[:, None])
    held = graph.tensor(f"{name}.weights", (WIDTH, WIDTH), values=weights)
    bias = graph.tensor(f"{name}.bias", (WIDTH,), values=random.normal(size=WIDTH) * 0.1)
    out = graph.tensor(name, (1, TOKENS, WIDTH))
    graph.op("FULLY_CONNECTED", [x, held, bias], [out], options="FullyConnectedOptions", keepNumDims=True)
    return out


def moved(graph: Graph, kind: str, x: int, to: tuple[int, ...], name: str, shape: tuple[int, ...]) -> int:
    given = graph.tensor(f"{name}.to", (len(to),), dtype=np.int32, values=to)
    out = graph.tensor(name, shape)
    options = {"options": "ReshapeOptions", "newShape": to} if kind == "RESHAPE" else {}
    graph.op(kind, [x, given], [out], **options)
    return out


def normalized(*, shared: bool = False) -> Model:
    """Return a gain and an offset of each channel, which two layers read."""
    graph = Graph()
    x = graph.tensor("x", (1, TOKENS, WIDTH))
    scaled, shifted = (graph.tensor(name, (1, TOKENS, WIDTH)) for name in ("scaled", "shifted"))
    gain = graph.tensor("gain", (WIDTH,), values=_SPREAD)
    graph.op("MUL", [x, gain], [scaled], options="MulOptions")
    graph.op("ADD", [scaled, gain if shared else graph.tensor("offset", (WIDTH,), values=_SPREAD)], [shifted])
    first, second = dense(graph, shifted, "first"), dense(graph, shifted, "second")
    out = graph.tensor("out", (1, TOKENS, WIDTH))
    graph.op("ADD", [first, second], [out])
    return normalize(graph.ends([x], [out]).as_model())


def attention(*, turned: bool = False) -> Model:
    """Return an attention of two heads whose values have channels of uneven size."""
    graph = Graph()
    x = graph.tensor("x", (1, TOKENS, WIDTH))
    parts = {}
    for name, rows in (("query", None), ("key", None), ("value", np.tile(_SPREAD[::2], HEADS))):
        heads = moved(
            graph, "RESHAPE", dense(graph, x, name, rows=rows), (1, TOKENS, HEADS, _HEAD), f"{name} heads",
            (1, TOKENS, HEADS, _HEAD),
        )  # fmt: skip
        shape = (1, HEADS, TOKENS, _HEAD)
        parts[name] = moved(graph, "TRANSPOSE", heads, (0, 2, 1, 3), f"{name} turned", shape)
    logits, weights = (graph.tensor(name, (1, HEADS, TOKENS, TOKENS)) for name in ("logits", "shares"))
    graph.op(
        "BATCH_MATMUL", [parts["query"], parts["key"]], [logits], options="BatchMatMulOptions", adjY=True
    )
    graph.op("SOFTMAX", [logits], [weights], options="SoftmaxOptions", beta=0.3)
    mixed = graph.tensor("mixed", (1, HEADS, TOKENS, _HEAD))
    values = parts["value"]
    if turned:
        values = moved(graph, "TRANSPOSE", values, (0, 1, 3, 2), "value columns", (1, HEADS, _HEAD, TOKENS))
    graph.op("BATCH_MATMUL", [weights, values], [mixed], options="BatchMatMulOptions", adjY=turned)
    back = moved(graph, "TRANSPOSE", mixed, (0, 2, 1, 3), "back", (1, TOKENS, HEADS, _HEAD))
    joined = moved(graph, "RESHAPE", back, (1, TOKENS, WIDTH), "joined", (1, TOKENS, WIDTH))
    return normalize(graph.ends([x], [dense(graph, joined, "out")]).as_model())


def samples_of(model: Model) -> Samples:
    values = np.random.default_rng(0).normal(size=(30, TOKENS, WIDTH)).astype(np.float32)
    return Samples(inputs=model.inputs, arrays=(values,))


def outputs(model: Model) -> np.ndarray:
    interpreter = Interpreter(model)
    results = []
    for each in samples_of(model).arrays[0]:
        interpreter.run([each[None]])
        results.append(interpreter.results()[0])
    return np.stack(results)


def unevenness(model: Model, name: str) -> float:
    """Return the largest over the smallest range of the channels of a tensor."""
    interpreter = Interpreter(model, every_tensor=True)
    index = [tflite_file.tensor_name(each) for each in model.graph.tensors].index(name)
    largest = np.zeros(_HEAD if name == "mixed" else WIDTH)
    for each in samples_of(model).arrays[0]:
        interpreter.run([each[None]])
        values = interpreter.tensor(index)
        largest = np.maximum(largest, np.abs(values).reshape(-1, values.shape[-1]).max(0))
    return float(largest.max() / largest.min())


@pytest.mark.parametrize(("build", "name"), [(normalized, "shifted"), (attention, "mixed")])
def test_uneven_channels_become_even_and_the_function_stays(build: object, name: str) -> None:
    model = normalized() if build is normalized else attention()
    equalized = equalize(model, samples_of(model), advance=ignore)
    assert equalized.groups == 1
    np.testing.assert_allclose(outputs(equalized.model), outputs(model), rtol=1e-4, atol=1e-4)
    assert unevenness(model, name) > 15
    assert unevenness(equalized.model, name) < unevenness(model, name) / 3


def test_a_shared_gain_stays() -> None:
    model = normalized(shared=True)
    assert find_groups(model) == ()


def test_a_transposed_second_input_stays() -> None:
    assert find_groups(attention(turned=True)) == ()


def test_the_weights_of_queries_and_keys_stay() -> None:
    model = attention()
    equalized = equalize(model, samples_of(model), advance=ignore).model
    for tensor, after in zip(model.graph.tensors, equalized.graph.tensors, strict=True):
        if tflite_file.tensor_name(tensor) in {"query.weights", "key.weights"}:
            before = edit.constant(model.parsed, tensor)
            np.testing.assert_array_equal(edit.constant(equalized.parsed, after), before)
