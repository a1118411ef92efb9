"""Parts of a graph that run several samples at once give what they give for one sample at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.convert
pytest.importorskip("ai_edge_litert")

from edgeq_converters.data.samples import Samples  # noqa: E402
from edgeq_converters.graph import batching, executor  # noqa: E402
from edgeq_converters.graph.executor import Executor  # noqa: E402
from edgeq_converters.graph.model import Model  # noqa: E402

from .graphs import Graph  # noqa: E402
from .nets import net, quantized, samples  # noqa: E402

SHAPE = (1, 4, 6, 3)


def one(name: str, extra: Callable[[Any], list[int]], out: tuple[int, ...] = SHAPE, **options: Any) -> Model:
    graph: Any = Graph()
    x, y = graph.tensor("x", SHAPE), graph.tensor("y", out)
    graph.op(name, (x, *extra(graph)), (y,), **options)
    model: Model = graph.ends([x], [y]).as_model(name)
    return model


def constant(
    shape: tuple[int, ...], kind: Any = np.float32, values: Any = None
) -> Callable[[Any], list[int]]:
    def add(graph: Any) -> list[int]:
        random = np.random.default_rng(1).uniform(0.5, 1.5, shape) if values is None else np.array(values)
        return [graph.tensor("c", shape, dtype=kind, values=random)]

    return add


def none(graph: Any) -> list[int]:
    return []


def same_input(graph: Any) -> list[int]:
    return [0]


UNARY = ["ABS", "ELU", "EXP", "LOGISTIC", "RELU", "RELU6", "RELU_N1_TO_1", "SQUARE", "TANH", "HARD_SWISH"]
APART = {
    **{name: one(name, none) for name in UNARY},
    "SOFTMAX": one("SOFTMAX", none, options="SoftmaxOptions", beta=1.0),
    "LEAKY_RELU": one("LEAKY_RELU", none, options="LeakyReluOptions", alpha=0.1),
    "ADD": one("ADD", same_input, options="AddOptions"),
    "ADD a row": one("ADD", constant((3,)), options="AddOptions"),
    "MUL a plane": one("MUL", constant((1, 4, 6, 3)), options="MulOptions"),
    "SUB a number": one("SUB", constant(()), options="SubOptions"),
    "PRELU": one("PRELU", constant((1, 1, 3))),
    "MAXIMUM": one("MAXIMUM", constant((3,)), options="MaximumMinimumOptions"),
    "MEAN": one("MEAN", constant((2,), np.int32, [1, 2]), (1, 3), options="ReducerOptions"),
    "RESHAPE": one("RESHAPE", constant((2,), np.int32, [1, 72]), (1, 72), options="ReshapeOptions"),
    "MAX_POOL_2D": one(
        "MAX_POOL_2D", none, (1, 2, 3, 3), options="Pool2DOptions", filterHeight=2, filterWidth=2, strideH=2,
        strideW=2,
    ),
    "CONCATENATION": one(
        "CONCATENATION", same_input, (1, 4, 6, 6), options="ConcatenationOptions", axis=-1
    ),
    "RESIZE_BILINEAR": one(
        "RESIZE_BILINEAR", constant((2,), np.int32, [8, 12]), (1, 8, 12, 3), options="ResizeBilinearOptions"
    ),
}  # fmt: skip
TOGETHER = {
    "TRANSPOSE": one("TRANSPOSE", constant((4,), np.int32, [0, 2, 1, 3]), (1, 6, 4, 3)),
    "CONCATENATION of samples": one(
        "CONCATENATION", same_input, (2, 4, 6, 3), options="ConcatenationOptions", axis=0
    ),
    "MEAN over the samples": one("MEAN", constant((1,), np.int32, [0]), (4, 6, 3), options="ReducerOptions"),
    "MEAN with an axis from the end": one(
        "MEAN", constant((1,), np.int32, [-4]), (4, 6, 3), options="ReducerOptions"
    ),
    "RESHAPE into samples": one("RESHAPE", constant((2,), np.int32, [6, 12]), (6, 12)),
}


def outputs(model: Model, given: Samples, *, at_once: int, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setattr(executor, "BATCH_VALUES", at_once)
    run = Executor(model, given)
    run.advance_to(len(run))
    return [run.values[int(i)] for i in model.graph.outputs]


@pytest.mark.parametrize("name", APART)
def test_a_batch_computes_each_sample_as_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = APART[name]
    assert batching.is_possible(model.parsed, model.graph.operators)
    rows = np.random.default_rng(0).normal(size=(7, *SHAPE[1:])).astype(np.float32)
    given = Samples(inputs=model.inputs, arrays=(rows,))
    alone = outputs(model, given, at_once=1, monkeypatch=monkeypatch)[0]
    # 3 does not divide the 7 samples: the last run is filled up.
    for together in (3 * int(np.prod(alone.shape[1:])), 1 << 20):
        batch = outputs(model, given, at_once=together, monkeypatch=monkeypatch)[0]
        assert batch.shape == alone.shape
        np.testing.assert_allclose(batch, alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", TOGETHER)
def test_an_operation_that_may_mix_samples_runs_one_at_a_time(name: str) -> None:
    model = TOGETHER[name]
    assert not batching.is_possible(model.parsed, model.graph.operators)


def test_the_layers_of_an_integer_net_give_the_same_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    floating = net()
    given = samples(floating, 9)
    model = quantized(floating, given)
    alone = outputs(model, given, at_once=1, monkeypatch=monkeypatch)
    batch = outputs(model, given, at_once=1 << 20, monkeypatch=monkeypatch)
    for one_by_one, at_once in zip(alone, batch, strict=True):
        np.testing.assert_array_equal(one_by_one, at_once)


def test_every_kind_that_may_run_in_a_batch_has_an_example() -> None:
    # Simple functions of each value differ only in their formula.
    by_formula = {
        "CAST",
        "DIV",
        "GELU",
        "LOG_SOFTMAX",
        "MINIMUM",
        "RSQRT",
        "SQRT",
        "SQUARED_DIFFERENCE",
        "RELU_0_TO_1",
    }
    in_the_net = {"CONV_2D", "DEPTHWISE_CONV_2D", "QUANTIZE", "DEQUANTIZE"}
    as_others = {"AVERAGE_POOL_2D", "L2_POOL_2D", "RESIZE_NEAREST_NEIGHBOR"}
    shown = {name.split()[0] for name in APART}
    assert batching.KINDS - shown - by_formula - in_the_net - as_others == set()
