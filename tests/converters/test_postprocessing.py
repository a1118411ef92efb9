"""Detectors that end with a post-processing: integer heads, float detections."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from flatbuffers import flexbuffers

pytestmark = pytest.mark.convert
pytest.importorskip("ai_edge_litert")

from edgeq.cli import main  # noqa: E402
from edgeq_converters.graph import op_report, postprocessing, tflite_file  # noqa: E402
from edgeq_converters.graph.edit import Editor  # noqa: E402
from edgeq_converters.graph.interpreter import run_samples  # noqa: E402
from edgeq_converters.graph.model import Model  # noqa: E402
from edgeq_converters.graph.rewrite.graph_editor import GraphEditor  # noqa: E402
from edgeq_converters.graph.rewrite.rules import prepared  # noqa: E402
from edgeq_converters.quantization.integer import quantize_activations  # noqa: E402
from edgeq_converters.quantization.quantize import Quantized  # noqa: E402
from edgeq_converters.values import OpKind  # noqa: E402

from .graphs import Graph  # noqa: E402
from .nets import quiet  # noqa: E402
from .test_columns import DEPTH, SIDE, recipe_of, samples  # noqa: E402

ANCHORS, CLASSES, MOST = 2 * SIDE * SIDE, 3, 8
POSTPROCESS = "CUSTOM TFLite_Detection_PostProcess"


def detector(kind: str = POSTPROCESS, *, also_scores: bool = False) -> Model:
    """Return a detector on 4x4x3 inputs: two anchors at each place, boxes and class scores, and its end.

    Args:
        also_scores: whether the scores that the post-processing reads are an output too.
    """
    random = np.random.default_rng(4)
    graph = Graph()
    x = graph.tensor("x", (1, SIDE, SIDE, DEPTH))

    def branch(name: str, columns: int, size: float) -> int:
        shape = (2 * columns, 3, 3, DEPTH)
        w = graph.tensor(f"{name}.w", shape, values=random.normal(size=shape) * size)
        b = graph.tensor(f"{name}.b", (2 * columns,), values=random.normal(size=2 * columns) * size)
        out = graph.tensor(f"{name}.conv", (1, SIDE, SIDE, 2 * columns))
        graph.op("CONV_2D", (x, w, b), (out,), options="Conv2DOptions", strideH=1, strideW=1)
        to = graph.tensor(f"{name}.to", (3,), dtype=np.int32, values=(1, ANCHORS, columns))
        rows = graph.tensor(name, (1, ANCHORS, columns))
        graph.op("RESHAPE", (out, to), (rows,), options="ReshapeOptions")
        return rows

    def constant(name: str, value: float, dtype: type = np.float32) -> int:
        return graph.tensor(name, (), dtype=dtype, values=value)

    boxes, logits = branch("boxes", 4, 0.3), branch("logits", CLASSES if kind == POSTPROCESS else 1, 0.6)
    scores = graph.tensor("scores", (1, ANCHORS, CLASSES if kind == POSTPROCESS else 1))
    graph.op("LOGISTIC", (logits,), (scores,))
    if kind == POSTPROCESS:
        places = np.linspace(0.1, 0.9, ANCHORS)
        corners = np.stack([places, places[::-1], np.full(ANCHORS, 0.2), np.full(ANCHORS, 0.2)], axis=1)
        anchors = graph.tensor("anchors", (ANCHORS, 4), values=corners)
        shapes = {"out.boxes": (1, MOST, 4), "out.classes": (1, MOST), "out.scores": (1, MOST), "count": (1,)}
        outputs = [graph.tensor(name, shape) for name, shape in shapes.items()]
        graph.op(kind, (boxes, scores, anchors), outputs)
        options = {
            "max_detections": MOST, "max_classes_per_detection": 1, "detections_per_class": MOST,
            "use_regular_nms": False, "nms_score_threshold": 0.3, "nms_iou_threshold": 0.5,
            "num_classes": CLASSES, "y_scale": 10.0, "x_scale": 10.0, "h_scale": 5.0, "w_scale": 5.0,
        }  # fmt: skip
        graph.graph.operators[-1].customOptions = np.frombuffer(bytes(flexbuffers.Dumps(options)), np.uint8)
    else:
        flat = graph.tensor("rows", (ANCHORS, 4)), graph.tensor("confidence", (ANCHORS,))
        for source, target, sizes in ((boxes, flat[0], (ANCHORS, 4)), (scores, flat[1], (ANCHORS,))):
            to = graph.tensor(f"to{target}", (len(sizes),), dtype=np.int32, values=sizes)
            graph.op("RESHAPE", (source, to), (target,), options="ReshapeOptions")
        limits = [constant("most", MOST, np.int32), constant("iou", 0.5), constant("least", 0.3)]
        indices = graph.tensor("indices", (MOST,), dtype=np.int32)
        count = graph.tensor("count", (), dtype=np.int32)
        if kind.endswith("V4"):
            inner = [indices, count]
        else:
            limits.append(constant("sigma", 0.0))
            inner = [indices, graph.tensor("kept", (MOST,)), count]
        graph.op(kind, (*flat, *limits), inner, options=f"NonMaxSuppressionV{kind[-1]}Options")
        picked = graph.tensor("picked", (MOST, 4))
        graph.op("GATHER", (flat[0], indices), (picked,), options="GatherOptions")
        outputs = [picked, *inner]
    ends = [outputs[0], scores, *outputs[1:]] if also_scores else outputs
    return prepared(graph.ends([x], ends).as_model("detector"))


KINDS = (POSTPROCESS, "NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5")


def made(model: Model, io: str = "int8", **keys: object) -> Quantized:
    return quantize_activations(
        model, recipe=recipe_of(io, **keys), samples=samples(model), histograms=None,
        step=lambda what, total: quiet,
    )  # fmt: skip


@pytest.mark.first_is_quick
@pytest.mark.parametrize("also_scores", [False, True])
@pytest.mark.parametrize("io", ["int8", "float32"])
@pytest.mark.parametrize("kind", KINDS)
def test_only_the_post_processing_stays_float(kind: str, io: str, also_scores: bool) -> None:
    model = detector(kind, also_scores=also_scores)
    quantized = made(model, io)
    integer = quantized.model
    computed = postprocessing.outputs(integer.parsed)
    assert [info.shape for info in integer.outputs] == [info.shape for info in model.outputs]
    assert [integer.outputs[i].dtype for i in computed] == [model.outputs[i].dtype for i in computed]
    if also_scores:
        assert integer.outputs[1].dtype == io
    info = op_report.describe(integer)
    op_report.require_full_integer(info, io=recipe_of(io).types, subject="detector")
    floats = {line.op for line in info.ops if line.kind is OpKind.FLOAT}
    assert kind in floats
    assert floats <= {kind, "GATHER"}
    assert [note for note in quantized.notes if "stays float" in note]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_taken_off_and_put_back_computes_the_same(kind: str) -> None:
    model = detector(kind, also_scores=True)
    whole = postprocessing.attach(postprocessing.detach(model).model, postprocessing.detach(model), model)
    expected = run_samples(model, samples(model, 8), advance=quiet)
    got = run_samples(whole, samples(model, 8), advance=quiet)
    assert [info.name for info in whole.outputs] == [info.name for info in model.outputs]
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_head_alone_has_what_the_post_processing_reads_as_outputs() -> None:
    detached = postprocessing.detach(detector())
    assert [info.name for info in detached.model.outputs] == ["boxes", "scores"]
    assert detached.read == ("boxes", "scores")
    kinds = [tflite_file.op_name(detached.model.parsed, each) for each in detached.model.graph.operators]
    assert kinds == ["CONV_2D", "RESHAPE", "CONV_2D", "RESHAPE", "LOGISTIC"]


def test_a_model_without_one_stays_as_it_is() -> None:
    model = detector()
    editor = Editor(model)
    graph = GraphEditor(editor.parsed)
    graph.graph.outputs = [next(i for i, t in enumerate(graph.graph.tensors) if t.name == b"scores")]
    graph.operators.pop()
    plain = editor.pack()
    assert postprocessing.detach(plain).model is plain


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["int8", "int16x8", "int8-mixed", "dynamic"])
def test_a_detector_converts_runs_and_is_evaluated(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model = detector()
    Path("float.tflite").write_bytes(model.data)
    np.savez("c.npz", x=samples(model).arrays[0])
    np.savez("e.npz", x=samples(model, seed=7).arrays[0])
    options = [] if scheme == "dynamic" else ["--calibration", "c.npz"]
    assert main(["convert", "float.tflite", "-o", "o.tflite", "--scheme", scheme, *options, "--strict"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "o.tflite", "--data", "e.npz", "--reference", "float.tflite", "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics["agreement_of"] == "boxes"
    assert metrics["agreement"] > 0.85
    assert metrics["useless"] is None
    assert min(each["sqnr_db"] or 99.0 for each in metrics["outputs"][:3]) > 25


@pytest.mark.slow
@pytest.mark.parametrize("boxes_only", [False, True])
@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_detector_that_ends_with_gather_is_not_judged_by_place(
    kind: str, boxes_only: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    model = detector(kind)
    if boxes_only:
        editor = Editor(model)
        editor.parsed.subgraphs[0].outputs = editor.parsed.subgraphs[0].outputs[:1]
        model = editor.pack()
    Path("float.tflite").write_bytes(model.data)
    np.savez("c.npz", x=samples(model).arrays[0])
    np.savez("e.npz", x=samples(model, seed=7).arrays[0])
    options = ["--scheme", "int8", "--calibration", "c.npz", "--strict", "--effort", "quick"]
    assert main(["convert", "float.tflite", "-o", "o.tflite", *options]) == 0
    capsys.readouterr()
    assert main(["evaluate", "o.tflite", "--data", "e.npz", "--reference", "float.tflite", "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics["agreement_of"] == "boxes"
    assert metrics["agreement"] > 0.7
    assert metrics["useless"] is None
