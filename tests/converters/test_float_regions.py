"""Float regions as pure functions: gaps that are filled, samples that are held out, logits that are cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from edgeq_converters.data.samples import Samples, subset
from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import float_regions, logits
from edgeq_converters.graph.float_regions import Operation, fill_gaps
from edgeq_converters.graph.model import Model
from edgeq_converters.sensitivity.float_region_search import held_out_third

from .graphs import Graph

pytestmark = pytest.mark.convert


def op(index: int, *sources: int, weighted: bool = False) -> Operation:
    return Operation(index=index, op="X", name=f"t{index}", sources=sources, weighted=weighted)


def test_a_gap_without_weights_between_float_regions_is_filled() -> None:
    chain = [op(0, weighted=True), op(1, 0), op(2, 1), op(3, 2, weighted=True)]
    assert fill_gaps(chain, {0, 3}) == {0, 3}  # op 1 alone has an int8 reader: two gaps in a row stay
    assert fill_gaps(chain, {0, 2}) == {0, 1, 2}


def test_a_gap_with_weights_stays_int8() -> None:
    chain = [op(0, weighted=True), op(1, 0, weighted=True), op(2, 1, weighted=True)]
    assert fill_gaps(chain, {0, 2}) == {0, 2}


def test_a_gap_with_another_int8_neighbour_stays_int8() -> None:
    graph = [op(0), op(1), op(2, 0, 1), op(3, 2)]
    assert fill_gaps(graph, {0, 3}) == {0, 3}
    assert fill_gaps(graph, {0, 1, 3}) == {0, 1, 2, 3}


def test_the_ends_are_never_added() -> None:
    chain = [op(0), op(1, 0), op(2, 1)]
    assert fill_gaps(chain, {1}) == {1}


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
