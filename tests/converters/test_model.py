"""The Model value: parsed once and never changed, whatever is done with its editors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import edit, tflite_file
from edgeq_converters.graph.edit import Editor
from edgeq_converters.graph.model import Model

from .graphs import Graph
from .nets import net

pytestmark = pytest.mark.convert


def test_a_model_is_parsed_once_and_only_when_its_graph_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    parse, calls = tflite_file.parse, []

    def counted(data: bytes, *, subject: str) -> Any:
        calls.append(subject)
        return parse(data, subject=subject)

    monkeypatch.setattr(tflite_file, "parse", counted)
    model = Model(data=net().data, subject="once")
    assert calls == []
    assert model.inputs[0].name == "x"
    assert model.outputs[0].name == "y"
    assert len(model.graph.operators) == 7
    assert calls == ["once"]


def test_an_editor_changes_its_own_copy() -> None:
    model = net()
    editor = Editor(model)
    tensor = next(t for t in editor.parsed.subgraphs[0].tensors if tflite_file.tensor_name(t) == "w4")
    edit.set_constant(editor.parsed, tensor, 2 * edit.constant(editor.parsed, tensor))
    changed = editor.pack()
    assert changed.subject == model.subject
    assert changed.data != model.data
    index = [tflite_file.tensor_name(t) for t in model.graph.tensors].index("w4")
    before = edit.constant(model.parsed, model.graph.tensors[index])
    after = edit.constant(changed.parsed, changed.graph.tensors[index])
    assert (after == 2 * before).all()
    assert Model(data=model.data, subject="again").sha256 == model.sha256


def test_a_constant_keeps_its_shape() -> None:
    editor = Editor(net())
    tensor = next(t for t in editor.parsed.subgraphs[0].tensors if tflite_file.tensor_name(t) == "w4")
    with pytest.raises(ValueError, match="expected the shape"):
        edit.set_constant(editor.parsed, tensor, edit.constant(editor.parsed, tensor)[:1])


def test_equal_zero_points_are_stored_once_and_read_by_all() -> None:
    def with_constants(count: int) -> Model:
        graph = Graph()
        x, y = (graph.tensor(name, (1, 64), dtype=np.int8) for name in "xy")
        graph.op("RELU", (x,), (y,))
        for number in range(count):
            values = np.full((64, 1), number, np.int8)
            graph.tensor(f"w{number}", (64, 1), dtype=np.int8, values=values, scale=[0.5] * 64)
        return Editor(graph.ends([x], [y]).as_model("constants")).pack()

    model = with_constants(9)
    eight_more = len(model.data) - len(with_constants(1).data)
    assert eight_more < 8 * (64 * (1 + 4 + 8))  # a value, a scale and a zero point for each channel
    for number, tensor in enumerate(model.graph.tensors[2:]):
        assert tensor.quantization.zeroPoint.tolist() == [0] * 64
        assert len(tensor.quantization.scale) == 64
        assert (edit.constant(model.parsed, tensor) == number).all()


def test_errors_name_the_subject(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(net().data[:200])
    with pytest.raises(ConverterError) as caught:
        _ = Model.read(path).parsed
    assert (caught.value.code, caught.value.subject) == ("EQ303", str(path))
    with pytest.raises(ConverterError) as caught:
        _ = Model(data=b"nothing at all", subject="text").inputs
    assert (caught.value.code, caught.value.subject) == ("EQ302", "text")
