"""Float islands as pure functions: gaps that are filled, samples that are held out, logits that are cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from edgeq_converters.data.samples import Samples
from edgeq_converters.graph import float_regions, logits, tflite_file
from edgeq_converters.graph.float_regions import Operation, closed
from edgeq_converters.sensitivity.float_region_search import split
from edgeq_converters.sensitivity.screening import some

pytestmark = pytest.mark.convert


def op(index: int, *sources: int, weighted: bool = False) -> Operation:
    return Operation(index=index, op="X", name=f"t{index}", sources=sources, weighted=weighted)


def test_a_gap_without_weights_between_islands_is_filled() -> None:
    chain = [op(0, weighted=True), op(1, 0), op(2, 1), op(3, 2, weighted=True)]
    assert closed(chain, {0, 3}) == {0, 3}  # op 1 alone has an int8 reader: two gaps in a row stay
    assert closed(chain, {0, 2}) == {0, 1, 2}


def test_a_gap_with_weights_stays_int8() -> None:
    chain = [op(0, weighted=True), op(1, 0, weighted=True), op(2, 1, weighted=True)]
    assert closed(chain, {0, 2}) == {0, 2}


def test_a_gap_with_another_int8_neighbour_stays_int8() -> None:
    graph = [op(0), op(1), op(2, 0, 1), op(3, 2)]
    assert closed(graph, {0, 3}) == {0, 3}
    assert closed(graph, {0, 1, 3}) == {0, 1, 2, 3}


def test_the_ends_are_never_added() -> None:
    chain = [op(0), op(1, 0), op(2, 1)]
    assert closed(chain, {1}) == {1}


def samples(count: int) -> Samples:
    return Samples(inputs=(), arrays=(np.arange(count),))


def test_every_third_sample_is_held_out() -> None:
    used, judged = split(samples(30))
    assert len(used) == 20
    assert len(judged) == 10
    assert not set(used.arrays[0]) & set(judged.arrays[0])


def test_few_samples_do_both() -> None:
    used, judged = split(samples(29))
    assert len(used) == len(judged) == 29


@pytest.mark.parametrize(("given", "count"), [(5, 10), (10, 10), (100, 10), (1, 1), (1000, 256)])
def test_some_samples_are_distinct_and_spread(given: int, count: int) -> None:
    chosen = some(samples(given), count).arrays[0]
    assert len(chosen) == len(set(chosen)) == min(given, count)
    assert chosen[0] == 0
    assert chosen[-1] == given - 1 or len(chosen) == 1


def test_the_cut_ends_before_the_softmax_and_keeps_the_signature(models: Path) -> None:
    data = (models / "float.tflite").read_bytes()
    cut = logits.cut(data, subject="float")
    whole, short = tflite_file.parse(data, subject="float"), tflite_file.parse(cut.data, subject="cut")
    kinds = [each.op for each in float_regions.operations(whole)]
    assert kinds[-1] == "SOFTMAX"
    assert [each.op for each in float_regions.operations(short)] == kinds[:-1]
    assert cut.removed == (len(kinds) - 1,)
    (output,) = short.subgraphs[0].outputs
    assert [int(each.tensorIndex) for each in short.signatureDefs[0].outputs] == [int(output)]
    assert logits.cut(cut.data, subject="again").data == cut.data
