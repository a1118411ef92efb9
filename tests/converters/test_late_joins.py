"""Joins of boxes and scores before other operations: they move to the output, and both keep their steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.convert
pytest.importorskip("ai_edge_litert")

from edgeq_converters.calibration.histogram import Histogram  # noqa: E402
from edgeq_converters.calibration.observe import observe  # noqa: E402
from edgeq_converters.data.samples import to_real  # noqa: E402
from edgeq_converters.graph.interpreter import run_samples  # noqa: E402
from edgeq_converters.graph.model import Model  # noqa: E402
from edgeq_converters.graph.rewrite.rules import prepared  # noqa: E402
from edgeq_converters.metrics import output_sqnr, slices_axis  # noqa: E402
from edgeq_converters.quantization import late_joins, slices  # noqa: E402
from edgeq_converters.recipe import Recipe  # noqa: E402
from edgeq_converters.values import Scheme  # noqa: E402

from .graphs import Graph  # noqa: E402
from .nets import quiet  # noqa: E402
from .test_columns import recipe_of  # noqa: E402
from .test_slices import WIDTH, float_results, made, samples  # noqa: E402

ROWS = 6


class Head:
    """A graph of sigmoid branches, which no division of weights can level, and of joins behind them."""

    def __init__(self) -> None:
        self.graph, self._random, self._number = Graph(), np.random.default_rng(2), 0
        self.x = self.graph.tensor("x", (1, WIDTH))

    def branch(self, size: float, columns: int, rows: int = ROWS) -> int:
        """Return values of the shape (1, rows, columns) up to a size."""
        graph, count = self.graph, rows * columns
        values = self._random.normal(size=(count, WIDTH)) / 2
        weights = self._constant(values.astype(np.float32))
        bias = self._constant((self._random.normal(size=count) - 1).astype(np.float32))
        flat = self._tensor((1, count))
        graph.op("FULLY_CONNECTED", [self.x, weights, bias], [flat], options="FullyConnectedOptions")
        unit = self._tensor((1, rows, columns))
        graph.op("LOGISTIC", [self.reshape(flat, (1, rows, columns))], [unit])
        if size == 1.0:
            return unit
        out = self._tensor((1, rows, columns))
        graph.op("MUL", [unit, self._constant(np.array(size, np.float32))], [out], options="MulOptions")
        return out

    def concat(self, parts: Sequence[int], axis: int) -> int:
        shape = list(self._shape(parts[0]))
        shape[axis] = sum(self._shape(each)[axis] for each in parts)
        out = self._tensor(shape)
        self.graph.op("CONCATENATION", parts, [out], options="ConcatenationOptions", axis=axis)
        return out

    def pack(self, parts: Sequence[int], axis: int) -> int:
        shape = list(self._shape(parts[0]))
        shape.insert(axis, len(parts))
        out = self._tensor(shape)
        self.graph.op("PACK", parts, [out], options="PackOptions", axis=axis, valuesCount=len(parts))
        return out

    def transpose(self, source: int, order: Sequence[int]) -> int:
        out = self._tensor([self._shape(source)[each] for each in order])
        to = self._constant(np.array(order, np.int32))
        self.graph.op("TRANSPOSE", [source, to], [out], options="TransposeOptions")
        return out

    def reshape(self, source: int, shape: Sequence[int]) -> int:
        out, to = self._tensor(shape), self._constant(np.array(shape, np.int32))
        self.graph.op("RESHAPE", [source, to], [out], options="ReshapeOptions", newShape=list(shape))
        return out

    def binary(self, kind: str, source: int, values: Sequence[float]) -> int:
        out, constant = self._tensor(self._shape(source)), self._constant(np.array(values, np.float32))
        self.graph.op(kind, [source, constant], [out], options=f"{kind.title()}Options")
        return out

    def relu(self, source: int) -> int:
        out = self._tensor(self._shape(source))
        self.graph.op("RELU", [source], [out])
        return out

    def model(self, out: int) -> Model:
        return prepared(self.graph.ends([self.x], [out]).as_model("head"))

    def _shape(self, index: int) -> tuple[int, ...]:
        return tuple(int(each) for each in self.graph.graph.tensors[index].shape)

    def _tensor(self, shape: Sequence[int]) -> int:
        self._number += 1
        return self.graph.tensor(f"t{self._number}", tuple(shape))

    def _constant(self, values: np.ndarray) -> int:
        self._number += 1
        return self.graph.tensor(f"c{self._number}", values.shape, dtype=values.dtype, values=values)


def head(kind: str) -> Model:
    """Return a model whose output has boxes up to 640 and scores up to 1 along one axis."""
    build = Head()

    def level(rows: int = ROWS) -> int:
        return build.concat([build.branch(640.0, 4, rows), build.branch(1.0, 3, rows)], 2)

    match kind:
        case "transposed":
            out = build.transpose(level(), (0, 2, 1))
        case "reshaped":
            out = build.reshape(level(), (1, 2, 3, 7))
        case "merged":  # the joined axis and the one after it become one
            rows = build.concat([build.branch(640.0, 3), build.branch(1.0, 3)], 1)
            out = build.reshape(rows, (1, 1, 36))
        case "levels":  # pairs of boxes and scores, joined along the anchors
            out = build.concat([level(), level(3)], 1)
        case "levels, transposed":
            out = build.transpose(build.concat([level(), level(3)], 1), (0, 2, 1))
        case "transposed levels":
            out = build.concat([build.transpose(level(), (0, 2, 1)), build.transpose(level(3), (0, 2, 1))], 2)
        case "packed levels":
            out = build.pack([level(), level()], 1)
        case "pack, transposed":
            pair = build.pack([build.branch(640.0, 3), build.branch(1.0, 3)], 1)
            out = build.transpose(pair, (0, 2, 1, 3))
        case "joined twice":
            out = build.concat([level(), build.branch(1.0, 2)], 2)
        case "moved":  # arithmetic with constants for each column, and ReLU
            out = build.relu(build.binary("ADD", level(), [9.0, 9, 9, 9, 0.1, 0.1, 0.1]))
        case _:
            out = build.binary("MUL", level(), [0.5])
    return build.model(out)


KINDS = (
    *("transposed", "reshaped", "merged", "levels", "levels, transposed", "transposed levels"),
    *("packed levels", "pack, transposed", "joined twice", "moved", "halved"),
)


def real(model: Model, seed: int = 5) -> np.ndarray:
    (values,) = run_samples(model, samples(model, seed=seed), advance=quiet)
    return to_real(values, model.outputs[0])


def worst_db(model: Model, integer: Model) -> float:
    """Return the lowest ratio of boxes and scores, separated by the sizes of the values at each place."""
    expected, got = (real(each).reshape(60, -1) for each in (model, integer))
    small = expected.max(axis=0) < 2
    return min(
        output_sqnr("", got[:, part], expected[:, part]).worst_db for part in (small, ~small) if part.any()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_moved_join_changes_no_bit(kind: str) -> None:
    model = head(kind)
    observed = observe(model, samples(model), advance=quiet)
    moved = late_joins.join_last(model, observed, recipe_of())
    assert np.array_equal(real(moved.model), real(model))
    assert slices.divide(moved.model, moved.histograms(observed) or _again(moved.model), recipe_of()).joins


def _again(model: Model) -> dict[str, Histogram]:
    return dict(observe(model, samples(model), advance=quiet))


@pytest.mark.first_is_quick
@pytest.mark.parametrize("kind", KINDS)
def test_boxes_and_scores_keep_their_steps(kind: str) -> None:
    model = head(kind)
    integer, quantized = made(model)
    assert worst_db(model, integer) > 30
    assert float_results(integer) == []
    assert [info.shape for info in integer.outputs] == [info.shape for info in model.outputs]
    assert any("have scales of their own" in note for note in quantized.notes)


def test_histograms_of_moved_values_are_those_before() -> None:
    model = head("levels, transposed")
    observed = observe(model, samples(model), advance=quiet)
    moved = late_joins.join_last(model, observed, recipe_of())
    known = moved.histograms(observed)
    again = observe(moved.model, samples(model), advance=quiet)
    assert known is not None
    for name, histogram in again.items():
        assert (known[name].minimum, known[name].maximum) == (histogram.minimum, histogram.maximum)
        assert known[name].total == histogram.total


@pytest.mark.parametrize("named", [False, True], ids=["16 bits", "named"])
def test_what_stays_as_it_is(named: bool) -> None:
    build = Head()
    joined = build.concat([build.branch(640.0, 4), build.branch(1.0, 3)], 2)
    out = build.transpose(joined, (0, 2, 1))
    name = build.graph.graph.tensors[joined].name.decode()
    recipe = Recipe(scheme=Scheme.INT8_MIXED, float_ops=(name,)) if named else Recipe(scheme=Scheme.INT16X8)
    model = build.model(out)
    observed = observe(model, samples(model), advance=quiet)
    assert late_joins.join_last(model, observed, recipe).model is model


def test_parts_of_one_size_are_not_moved() -> None:
    build = Head()
    joined = build.concat([build.branch(2.0, 4), build.branch(1.0, 3)], 2)
    model = build.model(build.transpose(joined, (0, 2, 1)))
    observed = observe(model, samples(model), advance=quiet)
    assert late_joins.join_last(model, observed, recipe_of()).model is model


@pytest.mark.parametrize(
    ("shape", "small", "axis"),
    [
        ((9, 84, 8400), (slice(None), slice(4, None)), 1),  # the columns of YOLO
        ((9, 84, 100), (slice(None), slice(4, None)), 1),
        ((9, 8400, 84), (slice(None), slice(None), slice(4, None)), 2),
        ((9, 6, 2, 3), (slice(None), slice(None), 1), 2),  # boxes and scores that PACK joins
        ((9, 64, 64, 2), (slice(None), slice(0, 20)), 3),  # empty rows of a mask are positions
        ((9, 64, 64, 1), (slice(None), slice(0, 20)), None),
        ((9, 50, 320), (slice(None), slice(0, 0)), None),  # embeddings of positions
        ((9, 1404), (slice(None), slice(0, 0)), None),
    ],
)
def test_slices_lie_along_quantities(
    shape: tuple[int, ...], small: tuple[Any, ...], axis: int | None
) -> None:
    values = np.random.default_rng(0).random(shape, np.float32)
    values[small] /= 100
    assert slices_axis(values) == axis
    if axis is not None:
        assert output_sqnr("out", values * 0.9, values).slices == shape[axis]
        assert output_sqnr("out", values * 0.9, values).axis == axis
