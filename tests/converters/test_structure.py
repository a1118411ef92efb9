"""The parts of a model besides its function: names, order, types, signatures, metadata, files."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgeq_converters.errors import ConverterError
from edgeq_converters.graph import metadata, tflite_file
from edgeq_converters.graph.cost import obstacle
from edgeq_converters.graph.edit import Editor
from edgeq_converters.graph.interface import interface_of, require_interface
from edgeq_converters.graph.interpreter import Interpreter
from edgeq_converters.graph.model import Model
from edgeq_converters.graph.normalize import normalize
from edgeq_converters.quantization.repair import repaired
from edgeq_converters.sources import signatures
from edgeq_converters.values import Interface, TensorInfo
from tests.converters.graphs import Graph

pytestmark = pytest.mark.convert


def two_outputs() -> Model:
    """A model of x + x and x - x."""
    graph = Graph()
    x = graph.tensor("x", (1, 4))
    a, b = graph.tensor("a", (1, 4)), graph.tensor("b", (1, 4))
    graph.op("ADD", [x, x], [a])
    graph.op("SUB", [x, x], [b])
    return graph.ends([x], [a, b]).as_model()


def with_outputs(model: Model, outputs: list[int], names: list[str]) -> Model:
    """Return the model with these output tensors under these names."""
    editor = Editor(model)
    editor.parsed.subgraphs[0].outputs = outputs
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex, signature.inputs = b"s", 0, []
    signature.outputs = []
    for name, index in zip(names, outputs, strict=True):
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name.encode(), index
        signature.outputs.append(entry)
    editor.parsed.signatureDefs = [signature]
    return editor.pack()


CHANGES: dict[str, Callable[[tuple[TensorInfo, ...]], tuple[TensorInfo, ...]]] = {
    "one is lost": lambda outputs: outputs[:1],
    "another order": lambda outputs: outputs[::-1],
    "another name": lambda outputs: (replace(outputs[0], name="z"), outputs[1]),
    "another shape": lambda outputs: (replace(outputs[0], shape=(1, 5)), outputs[1]),
    "another type": lambda outputs: (replace(outputs[0], dtype="int32"), outputs[1]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_other_interface_is_refused(change: str) -> None:
    model = two_outputs()
    require_interface(model, interface_of(model))
    other = Interface(inputs=model.inputs, outputs=CHANGES[change](model.outputs))
    with pytest.raises(ConverterError) as caught:
        require_interface(model, other)
    assert caught.value.code == "EQ322"


@pytest.mark.parametrize("outputs", [[1, 1], [0, 1], [1, 2, 1], [0, 0]])
def test_outputs_that_share_a_tensor_get_their_own(outputs: list[int]) -> None:
    names = [f"out{i}" for i in range(len(outputs))]
    model = with_outputs(two_outputs(), outputs, names)
    done = normalize(model)
    assert [tensor.name for tensor in model.outputs] == [tensor.name for tensor in done.outputs] == names
    indices = [int(i) for i in done.graph.outputs]
    assert len({*indices, *map(int, done.graph.inputs)}) == len(outputs) + 1
    before, after = Interpreter(model), Interpreter(done)
    x = np.array([[1, -2, 3, 4]], np.float32)
    before.run([x])
    after.run([x])
    for one, other in zip(before.results(), after.results(), strict=True):
        assert np.array_equal(one, other)


def test_a_constant_that_is_an_output_keeps_its_name() -> None:
    graph = Graph()
    x, y = graph.tensor("x", (1, 4)), graph.tensor("y", (1, 4))
    known = graph.tensor("known", (1, 4), values=np.ones((1, 4)))
    graph.op("ADD", [x, known], [y], options="AddOptions")
    model = graph.ends([x], [y, known]).as_model()
    assert [tensor.name for tensor in normalize(model).outputs] == ["y", "known"]


def test_a_part_that_nothing_reads_becomes_an_integer_too() -> None:
    graph = Graph()
    axis = graph.tensor("axis", (), dtype=np.int32, values=[1])
    x = graph.tensor("x", (1, 4), dtype=np.int8, scale=0.1)
    used, unused = graph.tensor("used", (1, 2), dtype=np.int8, scale=0.1), graph.tensor("unused", (1, 2))
    graph.op("SPLIT", [axis, x], [used, unused], options="SplitOptions", numSplits=2)
    model = graph.ends([x], [used]).as_model()
    tensor = repaired(model).graph.tensors[unused]
    assert (tflite_file.type_name(tensor), tflite_file.quantization(tensor)) == (
        "INT8",
        tflite_file.quantization(model.graph.tensors[used]),
    )
    Interpreter(repaired(model))


def test_metadata_files_and_description_are_carried() -> None:
    source, result = two_outputs(), two_outputs()
    editor = Editor(source)
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(b"what it is", np.uint8)
    editor.parsed.buffers.append(buffer)
    entry.name, entry.buffer = b"TFLITE_METADATA", len(editor.parsed.buffers) - 1
    editor.parsed.metadata, editor.parsed.description = [entry], b"keyword spotter 3"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as files:
        files.writestr("labels.txt", "yes\nno\n")
    source = editor.pack()
    source = source.with_data(source.data + archive.getvalue())
    done = metadata.carried(source, result)
    assert metadata.associated_files(done.data) == {"labels.txt": b"yes\nno\n"}
    assert done.parsed.description == b"keyword spotter 3"
    (kept,) = done.parsed.metadata
    assert kept.name == b"TFLITE_METADATA"
    assert bytes(done.parsed.buffers[kept.buffer].data) == b"what it is"
    Interpreter(done)
    assert metadata.carried(result, result) is result
    assert metadata.carried(source, done) is done


def test_one_signature_of_several_graphs_is_cut_out() -> None:
    editor = Editor(two_outputs())
    other = Editor(two_outputs()).parsed.subgraphs[0]
    other.outputs = [2]
    editor.parsed.subgraphs.append(other)
    editor.parsed.signatureDefs = []
    for number, key in enumerate((b"both", b"difference")):
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = key, number
        signature.inputs, signature.outputs = [], []
        for index in editor.parsed.subgraphs[number].outputs:
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = b"o%d" % index, int(index)
            signature.outputs.append(entry)
        editor.parsed.signatureDefs.append(signature)
    model = editor.pack()
    done, notes = signatures.only(model, "difference")
    assert (len(done.parsed.subgraphs), [tensor.name for tensor in done.outputs], notes) == (1, ["o2"], ())
    for asked in ("", "neither"):
        with pytest.raises(ConverterError) as caught:
            signatures.only(model, asked)
        assert caught.value.code == "EQ333"
    assert signatures.only(two_outputs(), "")[1] == ()


def test_an_operation_on_a_variable_has_no_output_and_no_name() -> None:
    graph = Graph()
    x = graph.tensor("x", (1, 4))
    y = graph.tensor("y", (1, 4))
    graph.op("ADD", [x, x], [y])
    graph.op("ASSIGN_VARIABLE", [x, y], [])
    model = graph.ends([x], [y]).as_model()
    assert [tflite_file.operation_name(model.graph, op) for op in model.graph.operators] == ["y", ""]
    editor = Editor(model)
    editor.parsed.subgraphs[0].operators[1].outputs = None
    assert len(editor.pack().graph.operators[1].outputs) == 0
    assert obstacle(model) is None
