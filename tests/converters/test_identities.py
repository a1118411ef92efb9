"""Operations that cannot change a value are removed; others of the same kind stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from edgeq_converters.data.samples import Samples
from edgeq_converters.graph import tflite_file
from edgeq_converters.graph.dead_operations import without_dead
from edgeq_converters.graph.interpreter import run_samples
from edgeq_converters.graph.model import Model
from edgeq_converters.sources.identities import without_identities
from tests.converters.graphs import Graph

pytestmark = pytest.mark.convert
INF = np.inf


def model(kind: str, values: Any, *, first: bool = False, last: bool = False) -> Model:
    """Return y = kind(x + x, values) + x, or with the operation as the graph's output."""
    graph: Any = Graph()
    x = graph.tensor("x", (1, 3))
    fixed = graph.tensor("c", np.shape(values), values=np.asarray(values, np.float32))
    a = graph.tensor("a", (1, 3))
    shape = np.broadcast_shapes((1, 3), np.shape(values))
    b, y = graph.tensor("b", shape), graph.tensor("y", shape)
    graph.op("ADD", (x, x), (a,), options="AddOptions")
    graph.op(kind, (fixed, a) if first else (a, fixed), (b,), options="MaximumMinimumOptions")
    if not last:
        graph.op("ADD", (b, x), (y,), options="AddOptions")
    return Model(data=graph.ends([x], [b if last else y]).data(), subject="m")


def kinds(of: Model) -> list[str]:
    return [tflite_file.op_name(of.parsed, operator) for operator in of.graph.operators]


def outputs(of: Model) -> Any:
    given = np.asarray([[-1, 0, 2]], np.float32)
    (got,) = run_samples(of, Samples(inputs=of.inputs, arrays=(given,)), advance=lambda _done: None)
    return got


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(
    ("kind", "values"), [("MAXIMUM", [-INF]), ("MAXIMUM", [[-INF] * 3]), ("MINIMUM", [INF]), ("MINIMUM", INF)]
)
def test_a_neutral_constant_is_read_past(kind: str, values: Any, first: bool) -> None:
    before = model(kind, values, first=first)
    after = without_dead(without_identities(before))
    assert kinds(after) == ["ADD", "ADD"]
    assert len(after.graph.tensors) == 3  # the constant is gone too
    np.testing.assert_array_equal(outputs(after), outputs(before))


@pytest.mark.parametrize(
    ("kind", "values", "last"),
    [
        ("MAXIMUM", [INF], False),
        ("MINIMUM", [-INF], False),
        ("MAXIMUM", [[-INF, 0.0, -INF]], False),
        ("MAXIMUM", [[-INF] * 3] * 2, False),  # it widens the shape
        ("MAXIMUM", [-INF], True),  # it gives the output
    ],
)
def test_what_changes_something_stays(kind: str, values: Any, last: bool) -> None:
    before = model(kind, values, last=last)
    assert without_identities(before) is before
