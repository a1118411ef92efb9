"""Sensitivity by the worst slice of the worst output, and before a post-processing of detections."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.convert
pytest.importorskip("ai_edge_litert")

from edgeq.cli import main  # noqa: E402
from edgeq.search.sensitivity_page import sensitivity_view  # noqa: E402
from edgeq_converters.graph import tflite_file  # noqa: E402
from edgeq_converters.graph.model import Model  # noqa: E402
from edgeq_converters.graph.rewrite.rules import prepared  # noqa: E402
from edgeq_converters.sensitivity.float_region_search import search_float_regions  # noqa: E402
from edgeq_converters.sensitivity.measure import measure  # noqa: E402
from edgeq_converters.sensitivity.values import Sensitivity  # noqa: E402

from . import test_columns, test_postprocessing, test_slices  # noqa: E402
from .graphs import Graph  # noqa: E402
from .nets import quiet  # noqa: E402


def measured(model: Model, floats: int = 1) -> Sensitivity:
    apart = test_columns if len(model.inputs[0].shape) == 4 else test_slices
    return measure(
        model, apart.samples(model, 40), apart.samples(model, 30, seed=8),
        step=lambda what, total: quiet, float_steps=floats,
    )  # fmt: skip


def two_outputs(size: float) -> Model:
    """Return two dense layers behind one of many values; the second output is `size` times the first."""
    random = np.random.default_rng(3)
    graph = Graph()
    x = graph.tensor("x", (1, test_slices.WIDTH))
    outputs = []
    for name, scale in (("first", 1.0), ("second", size)):
        shape = (5, test_slices.WIDTH)
        weights = graph.tensor(f"{name}.w", shape, values=random.normal(size=shape) * scale)
        outputs.append(graph.tensor(name, (1, 5)))
        graph.op("FULLY_CONNECTED", [x, weights], [outputs[-1]], options="FullyConnectedOptions")
    spread = graph.tensor("spread", (5,), values=np.array([1, 1e-3, 1e-3, 1e-3, 1e-3]))
    last = graph.tensor("last", (1, 5))
    graph.op("MUL", [outputs[1], spread], [last])
    return prepared(graph.ends([x], [outputs[0], last]).as_model("two"))


@pytest.mark.first_is_quick
@pytest.mark.parametrize("pixels", [640.0, 1e4])
def test_the_operation_that_kills_the_scores_is_ranked_first(pixels: float) -> None:
    result = measured(test_slices.detector(pixels=pixels))
    worst = result.ops[result.ranking[0]]
    assert worst.op == "CONCATENATION"
    assert worst.alone_db is not None
    assert worst.alone_at is not None
    assert worst.alone_at.sqnr_db is not None
    assert worst.alone_at.sqnr_db > 35  # over all values, nothing shows
    assert worst.alone_db == worst.alone_at.worst_db < 10
    assert worst.alone_at.worst_slice is not None
    assert worst.alone_at.worst_at == f"out, slice {worst.alone_at.worst_slice}"
    assert worst.alone_at.worst_slice >= 4
    assert result.int8_db == result.int8_outputs[0].worst_db < 10
    assert result.has_slices
    assert result.float_steps[0].float_ops == (worst.name,)
    assert result.float_steps[0].sqnr_db > result.int8_db + 10
    assert any("leave it float" in line for line in worst.advice)
    ranked = [result.ops[i].alone_db or 0.0 for i in result.ranking]
    assert ranked == sorted(ranked)


def test_float_regions_are_ranked_by_the_worst_slice() -> None:
    model = test_slices.detector()
    for count in (40, 20):  # a third is held out; of few samples, each half once
        result = search_float_regions(
            model, test_slices.samples(model, count), step=lambda what, total: quiet, calibrator="minmax"
        )
        plain, first = result.sets[0], result.sets[1]
        assert plain.sqnr_db < 10  # the scores are dead, although all values together have more than 35 dB
        worst = model.graph.operators[result.ranking[0]]
        assert tflite_file.op_name(model.parsed, worst) == "CONCATENATION"
        assert first.indices == (result.ranking[0],)
        assert first.sqnr_db > 25


def test_float_regions_of_detections_are_compared_before_their_post_processing() -> None:
    model = test_postprocessing.detector()
    samples = test_columns.samples(model)
    result = search_float_regions(model, samples, step=lambda what, total: quiet, calibrator="minmax")
    last = len(model.graph.operators) - 1
    assert last not in result.alone_db
    assert result.after_logits[-1] == tflite_file.operation_name(model.graph, model.graph.operators[last])
    assert result.sets[0].sqnr_db > 20  # the order of the listed boxes does not count


@pytest.mark.slow
def test_the_worse_of_two_outputs_counts_whatever_its_size() -> None:
    for size in (1e3, 1e-3):
        result = measured(two_outputs(size))
        assert [each.name for each in result.int8_outputs] == ["first", "last"]
        assert result.int8_db == min(each.worst_db for each in result.int8_outputs)
        at = {op.name: op.alone_at.name for op in result.ops if op.alone_at is not None}
        assert (at["first"], at["last"]) == ("first", "last")


@pytest.mark.slow
@pytest.mark.parametrize("kind", test_postprocessing.KINDS)
def test_what_a_post_processing_reads_is_measured(kind: str) -> None:
    model = test_postprocessing.detector(kind)
    result = measured(model)
    after = [op for op in result.ops if op.alone_db is None]
    assert after[-1].index == len(result.ops) - 1
    assert kind in {op.op for op in after if op.reason.startswith("post-processing of detections")}
    assert kind in result.before
    assert len(result.int8_outputs) == 2
    assert result.int8_db > 20
    assert {op.op for op in result.ops} >= {"CONV_2D", kind}


@pytest.mark.slow
def test_the_command_and_the_page_say_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model = test_slices.detector()
    Path("float.tflite").write_bytes(model.data)
    np.savez("c.npz", x=test_slices.samples(model, 40).arrays[0])
    np.savez("e.npz", x=test_slices.samples(model, 30, seed=8).arrays[0])
    command = ["sensitivity", "float.tflite", "--calibration", "c.npz", "--evaluation", "e.npz"]
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    worst = document["ops"][document["ranking"][0]]
    assert worst["op"] == "CONCATENATION"
    assert worst["alone_at"]["worst_slice_db"] == worst["alone_db"] < 10
    assert document["int8_outputs"][0]["worst_slice_db"] == document["int8_db"]
    assert main([*command, "--html", "page.html"]) == 0
    assert "worst at" in capsys.readouterr().out
    assert "out, slice" in Path("page.html").read_text(encoding="utf-8")
    view = sensitivity_view(Path("float.tflite"), measured(model))
    assert "the worst" in view.verdicts[0].text
