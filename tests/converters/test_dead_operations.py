"""The removal of operations whose results nothing reads: the outputs keep their values, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("ai_edge_litert")

from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.data.samples import Samples
from edgeq_converters.graph import state, tflite_file
from edgeq_converters.graph.dead_operations import without_dead
from edgeq_converters.graph.interpreter import run_samples
from edgeq_converters.graph.model import Model
from tests.converters.graphs import Graph

pytestmark = pytest.mark.convert


def outputs(model: Model) -> list[np.ndarray]:
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    return list(run_samples(model, Samples(inputs=model.inputs, arrays=(x,)), advance=lambda _done: None))


def names(model: Model) -> list[str]:
    return [tflite_file.op_name(model.parsed, operator) for operator in model.graph.operators]


@settings(max_examples=60)
@given(
    parts=st.lists(
        st.tuples(st.sampled_from(["ADD", "MUL", "SUB"]), st.integers(0, 99)), min_size=1, max_size=9
    ),
    ends=st.sets(st.integers(0, 8), min_size=1, max_size=3),
)
def test_any_graph_keeps_its_outputs_and_has_nothing_left_to_remove(
    parts: list[tuple[str, int]], ends: set[int]
) -> None:
    graph: Any = Graph()
    x = graph.tensor("x", (1, 4))
    made = [x]
    for number, (name, reads) in enumerate(parts):
        weights = graph.tensor(f"w{number}", (4,), values=np.arange(4) + number)
        y = graph.tensor(f"y{number}", (1, 4))
        graph.op(name, (made[reads % len(made)], weights), (y,), options=f"{name.capitalize()}Options")
        made.append(y)
    given_outputs = sorted({made[1:][end % (len(made) - 1)] for end in ends})
    model = graph.ends([x], given_outputs).as_model()
    done = without_dead(model)
    assert [tensor.name for tensor in done.outputs] == [tensor.name for tensor in model.outputs]
    for one, other in zip(outputs(model), outputs(done), strict=True):
        assert np.array_equal(one, other)
    assert without_dead(done) is done
    read = {int(i) for operator in done.graph.operators for i in operator.inputs}
    read.update(int(i) for i in done.graph.outputs)
    assert all(set(map(int, operator.outputs)) & read for operator in done.graph.operators)
    # Nothing of the file is left of what was removed.
    assert len(done.graph.tensors) == 1 + 2 * len(done.graph.operators)


def with_variable(*, reads: bool) -> Model:
    """Return y = x + x, beside a variable that each inference increases; `reads` adds it to y."""
    graph: Any = Graph()
    x, y = graph.tensor("x", (1, 4)), graph.tensor("y", (1, 4))
    one = graph.tensor("one", (1, 4), values=np.ones(4))
    now, more = graph.tensor("now", (1, 4)), graph.tensor("more", (1, 4))
    handle = graph.tensor("handle", (), dtype=np.int32)
    graph.graph.tensors[handle].type = schema.TensorType.RESOURCE
    graph.op("CALL_ONCE", (), (), options="CallOnceOptions", initSubgraphIndex=1)
    graph.op("VAR_HANDLE", (), (handle,), options="VarHandleOptions", container="", sharedName="v")
    graph.op("READ_VARIABLE", (handle,), (now,), options="ReadVariableOptions")
    graph.op("ADD", (now, one), (more,), options="AddOptions")
    graph.op("ASSIGN_VARIABLE", (handle, more), (), options="AssignVariableOptions")
    graph.op("ADD", (x, now if reads else x), (y,), options="AddOptions")
    graph.ends([x], [y])
    first = Graph()
    first.model, start = graph.model, first.graph
    start.tensors, start.operators, start.inputs, start.outputs = [], [], [], []
    zero = first.tensor("zero", (1, 4), values=np.zeros(4))
    same = first.tensor("same", (), dtype=np.int32)
    start.tensors[same].type = schema.TensorType.RESOURCE
    first.op("VAR_HANDLE", (), (same,), options="VarHandleOptions", container="", sharedName="v")
    first.op("ASSIGN_VARIABLE", (same, zero), (), options="AssignVariableOptions")
    graph.model.subgraphs.append(start)
    model: Model = graph.as_model()
    return model


def test_a_variable_that_no_output_reads_is_removed_with_its_first_value() -> None:
    model = with_variable(reads=False)
    done = without_dead(model)
    assert state.read(model).kept
    assert not state.read(done).kept
    assert (names(done), len(done.parsed.subgraphs)) == (["ADD"], 1)
    for one, other in zip(outputs(model), outputs(done), strict=True):
        assert np.array_equal(one, other)


def test_a_variable_that_an_output_reads_stays() -> None:
    model = with_variable(reads=True)
    assert without_dead(model) is model
