"""Float regions as pure functions: gaps that are filled, samples that are held out, logits that are cut."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("ai_edge_litert")

from edgeq_converters.data.samples import Samples, subset
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import float_regions, logits
from edgeq_converters.graph.float_regions import Operation, conversions, fill_gaps
from edgeq_converters.graph.model import Model
from edgeq_converters.sensitivity.float_region_search import held_out_third

from .graphs import Graph

pytestmark = pytest.mark.convert


def op(index: int, *sources: int, weighted: bool = False, end: bool = False) -> Operation:
    """Return an operation whose one output is the tensor `index`; the tensor -1 is the graph's input."""
    return Operation(
        index=index,
        op="X",
        name=f"t{index}",
        sources=sources,
        weighted=weighted,
        reads=sources or (-1,),
        writes=(index,),
        ends=(index,) if end else (),
    )


def test_a_gap_without_weights_between_float_regions_is_filled() -> None:
    chain = [op(0, weighted=True), op(1, 0), op(2, 1), op(3, 2, weighted=True, end=True)]
    assert fill_gaps(chain, {0, 3}) == {0, 1, 2, 3}
    assert fill_gaps(chain, {0, 2}) == {0, 1, 2}
    assert fill_gaps(chain, {0}) == {0}


def test_a_gap_with_weights_stays_int8() -> None:
    chain = [op(0, weighted=True), op(1, 0, weighted=True), op(2, 1, weighted=True, end=True)]
    assert fill_gaps(chain, {0, 2}) == {0, 2}


def test_a_gap_that_int8_operations_read_too_is_filled_where_that_saves_a_conversion() -> None:
    both = [op(0), op(1), op(2, 0, 1, weighted=True), op(3, 2, end=True)]
    assert fill_gaps(both, {0, 1, 3}) == {0, 1, 3}  # the weights stay int8
    read = [op(0), op(1, 0), op(2, 1), op(3, 1, weighted=True, end=True)]
    assert fill_gaps(read, {0, 2}) == {0, 1, 2}  # one conversion after 1 in place of two


def test_the_ends_are_added_only_where_they_are_float() -> None:
    chain = [op(0), op(1, 0), op(2, 1, end=True)]
    assert fill_gaps(chain, {1}) == {1}
    assert fill_gaps(chain, {1}, float_ends=True) == {0, 1, 2}
    assert fill_gaps(chain, set(), float_ends=True) == set()


@st.composite
def graphs(draw: st.DrawFn) -> list[Operation]:
    """Return the operations of a graph of up to 7, with one or two outputs each."""
    made: list[Operation] = []
    tensors = [-1]
    for index in range(draw(st.integers(1, 7))):
        reads = tuple(sorted(draw(st.sets(st.sampled_from(tensors[-4:]), min_size=1, max_size=2))))
        writes = tuple(range(len(tensors), len(tensors) + draw(st.integers(1, 2))))
        weighted = draw(st.integers(0, 2)) == 0
        tensors += writes
        made.append(
            Operation(
                index=index, op="X", name=f"t{index}", sources=(), weighted=weighted,
                reads=reads, writes=writes,
            )
        )  # fmt: skip
    read = {tensor for each in made for tensor in each.reads}
    also = draw(st.sets(st.sampled_from(tensors), max_size=1))
    return [replace(each, ends=tuple(t for t in each.writes if t not in read or t in also)) for each in made]


@given(ops=graphs(), chosen=st.sets(st.integers(0, 6), min_size=1), float_ends=st.booleans())
@settings(max_examples=200, deadline=None)
def test_no_other_choice_has_fewer_conversions(
    ops: list[Operation], chosen: set[int], float_ends: bool
) -> None:
    fixed = {each.index for each in ops} & chosen
    if not fixed:
        return
    free = [each.index for each in ops if each.index not in fixed and not each.weighted]
    choices = [
        fixed | set(more) for count in range(len(free) + 1) for more in itertools.combinations(free, count)
    ]
    best = min((conversions(ops, choice, float_ends=float_ends), len(choice)) for choice in choices)
    filled = fill_gaps(ops, fixed, float_ends=float_ends)
    assert filled in choices
    assert (conversions(ops, filled, float_ends=float_ends), len(filled)) == best


def samples(count: int) -> Samples:
    return Samples(inputs=(), arrays=(np.arange(count),))


def test_a_third_of_the_samples_is_held_out() -> None:
    (fold,) = held_out_third(samples(30)).folds
    assert (len(fold.fit), len(fold.held_out)) == (20, 10)
    assert not set(fold.fit.arrays[0]) & set(fold.held_out.arrays[0])


def test_of_few_samples_each_half_is_held_out_once() -> None:
    parts = held_out_third(samples(29))
    assert [len(fold.held_out) for fold in parts.folds] == [15, 14]
    for fold in parts.folds:
        assert not set(fold.fit.arrays[0]) & set(fold.held_out.arrays[0])
        assert len(fold.fit) + len(fold.held_out) == 29
    with pytest.raises(ConverterError, match="at least two different samples") as caught:
        held_out_third(Samples(inputs=(), arrays=(np.zeros((9, 2)),)))
    assert caught.value.code == "EQ202"


@pytest.mark.parametrize(("given", "count"), [(5, 10), (10, 10), (100, 10), (1, 1), (1000, 256)])
def test_a_subset_of_samples_is_distinct_and_evenly_spread(given: int, count: int) -> None:
    chosen = subset(samples(given), count).arrays[0]
    assert len(chosen) == len(set(chosen)) == min(given, count)
    assert chosen[0] == 0
    assert chosen[-1] == given - 1 or len(chosen) == 1


def test_the_cut_ends_before_the_softmax_and_keeps_the_signature(models: Path) -> None:
    whole = Model.read(models / "float.tflite")
    cut = logits.cut(whole)
    kinds = [each.op for each in float_regions.operations(whole)]
    assert kinds[-1] == "SOFTMAX"
    assert [each.op for each in float_regions.operations(cut.model)] == kinds[:-1]
    assert cut.removed == (len(kinds) - 1,)
    (output,) = cut.model.graph.outputs
    assert [int(each.tensorIndex) for each in cut.model.parsed.signatureDefs[0].outputs] == [int(output)]
    assert logits.cut(cut.model).model is cut.model


def test_a_softmax_that_another_operation_reads_stays_with_its_outputs() -> None:
    graph = Graph()
    x, scores, classes, y = (graph.tensor(name, (1, 4)) for name in ("x", "scores", "classes", "y"))
    graph.op("ADD", [x, x], [scores], options="AddOptions")
    graph.op("SOFTMAX", [scores], [classes], options="SoftmaxOptions", beta=1.0)
    graph.op("ADD", [classes, x], [y], options="AddOptions")
    cut = logits.cut(graph.ends([x], [classes, y]).as_model())
    assert cut.removed == ()
    assert cut.tensors == ("classes", "y") == tuple(info.name for info in cut.model.outputs)
