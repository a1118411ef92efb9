"""Inputs and outputs that a source declares, read without the framework that wrote it."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edgeq_converters.errors import ConverterError
from edgeq_converters.sources import saved_model_interface
from edgeq_converters.sources.detect import SourceKind
from edgeq_converters.sources.keras_outputs import declared_outputs
from edgeq_converters.sources.onnx_interface import declared

Sizes = Sequence[int | str]


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, content: bytes | str | int) -> bytes:
    """Return a field of a protobuf message."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    data = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(data)) + data


def value(name: str, sizes: Sizes, *, element: int = 1) -> bytes:
    """Return a ValueInfoProto."""
    dimensions = [field(1, size) if isinstance(size, int) else field(2, size) for size in sizes]
    shape = b"".join(field(1, dimension) for dimension in dimensions)
    return field(1, name) + field(2, field(1, field(1, element) + field(2, shape)))


def onnx(inputs: Sequence[bytes], outputs: Sequence[bytes], *, weights: Sequence[str] = ()) -> bytes:
    tensors = [field(1, 4) + field(2, 1) + field(8, name) + field(9, bytes(16)) for name in weights]
    graph = field(1, field(4, "Relu"))
    graph += b"".join(field(5, tensor) for tensor in tensors)
    graph += b"".join(field(11, each) for each in inputs) + b"".join(field(12, each) for each in outputs)
    return field(1, 8) + field(2, "made") + field(7, graph)


def test_an_onnx_file_says_its_inputs_and_outputs(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    inputs = [value("image", ["N", 3, 300, 12]), value("W", [4]), value("ids", [1, 7], element=7)]
    path.write_bytes(onnx(inputs, [value("scores", [0, 5])], weights=["W"]))
    interface = declared(path)
    assert interface is not None
    assert [(each.name, each.shape, each.dtype) for each in interface.inputs] == [
        ("image", (-1, 3, 300, 12), "float32"),
        ("ids", (1, 7), "int64"),
    ]
    assert [(each.name, each.shape) for each in interface.outputs] == [("scores", (-1, 5))]


def test_an_onnx_file_that_leaves_something_open_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    without_shape = field(1, "x") + field(2, field(1, field(1, 1)))
    a_sequence = field(1, "x") + field(2, field(4, b""))
    texts = value("x", [1], element=8)
    for unknown in (without_shape, a_sequence, texts):
        path.write_bytes(onnx([unknown], [value("y", [1])]))
        assert declared(path) is None
    path.write_bytes(onnx([], [value("y", [1])]))
    assert declared(path) is None


def test_a_truncated_onnx_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    whole = onnx([value("x", [1, 3])], [value("y", [1])])
    path.write_bytes(whole[:-3])
    with pytest.raises(ConverterError) as caught:
        declared(path)
    assert caught.value.code == "EQ305"


def signature(name: str, inputs: Sequence[bytes], outputs: Sequence[bytes]) -> bytes:
    """Return an entry of a map of SignatureDef."""
    body = b"".join(field(1, each) for each in inputs) + b"".join(field(2, each) for each in outputs)
    return field(5, field(1, name) + field(2, body))


def end(name: str, sizes: Sequence[int], *, dtype: int = 1, unknown: bool = False) -> bytes:
    """Return an entry of a map of TensorInfo."""
    shape = b"".join(field(2, field(1, size % 2**64)) for size in sizes) + (field(3, 1) if unknown else b"")
    return field(1, name) + field(2, field(1, f"{name}:0") + field(2, dtype) + field(3, shape))


def saved_model(folder: Path, *signatures: bytes) -> Path:
    (folder / "saved_model.pb").write_bytes(field(1, 1) + field(2, field(1, b"") + b"".join(signatures)))
    return folder


def test_a_saved_model_says_its_inputs_and_outputs(tmp_path: Path) -> None:
    usual = signature("serving_default", [end("z", [-1, 3]), end("a", [1, 2], dtype=9)], [end("y", [-1, 5])])
    other = signature("other", [end("q", [1])], [end("r", [1])])
    start = signature("__saved_model_init_op", [], [end("r", [1])])
    interface = saved_model_interface.declared(saved_model(tmp_path, start, other, usual))
    assert interface is not None
    assert [(each.name, each.shape, each.dtype) for each in interface.inputs] == [
        ("a", (1, 2), "int64"),
        ("z", (-1, 3), "float32"),
    ]
    assert [(each.name, each.shape) for each in interface.outputs] == [("y", (-1, 5))]
    only = saved_model_interface.declared(saved_model(tmp_path, start, other))
    assert only is not None
    assert only.inputs[0].name == "q"


@pytest.mark.parametrize(
    "signatures",
    [
        [],
        [signature("a", [end("x", [1])], [end("y", [1])]), signature("b", [end("x", [1])], [end("y", [1])])],
        [signature("a", [end("x", [], unknown=True)], [end("y", [1])])],
        [signature("a", [end("x", [1], dtype=7)], [end("y", [1])])],
        [signature("a", [], [end("y", [1])])],
    ],
)
def test_a_saved_model_that_leaves_something_open_says_nothing(
    signatures: list[bytes], tmp_path: Path
) -> None:
    assert saved_model_interface.declared(saved_model(tmp_path, *signatures)) is None


def test_a_truncated_saved_model_is_refused(tmp_path: Path) -> None:
    path = saved_model(tmp_path, signature("a", [end("x", [1])], [end("y", [1])])) / "saved_model.pb"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ConverterError) as caught:
        saved_model_interface.declared(tmp_path)
    assert caught.value.code == "EQ305"


@pytest.mark.shared
def test_a_saved_model_that_tensorflow_wrote(shared_data: Path) -> None:
    interface = saved_model_interface.declared(shared_data / "kws" / "saved_model")
    assert interface is not None
    assert [each.shape for each in (*interface.inputs, *interface.outputs)] == [(-1, 49, 10, 1), (-1, 12)]


def layer(kind: str, name: str, source: str = "", shape: Any = None, **config: Any) -> dict[str, Any]:
    """Return a layer as Keras 3 writes it into config.json."""
    nodes = []
    if source:
        history = {"shape": shape, "dtype": "float32", "keras_history": [source, 0, 0]}
        nodes = [{"args": [{"class_name": "__keras_tensor__", "config": history}], "kwargs": {}}]
    return {"class_name": kind, "config": {"name": name, **config}, "inbound_nodes": nodes}


def outputs(
    folder: Path, config: dict[str, Any], *, kind: str = "Functional"
) -> list[tuple[str, tuple[int, ...]]] | None:
    path = folder / "m.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps({"class_name": kind, "config": config}))
    result = declared_outputs(path, SourceKind.KERAS)
    return None if result is None else [(each.name, each.shape) for each in result]


IMAGE = layer("InputLayer", "image", batch_shape=[None, 8, 8, 3], dtype="float32")


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        ([layer("Flatten", "f", "image"), layer("Dense", "out", "f", units=5)], (-1, 5)),
        ([layer("Dense", "d", "image", units=5), layer("Softmax", "out", "d")], (-1, 8, 8, 5)),
        ([layer("GlobalAveragePooling2D", "out", "image", data_format="channels_last")], (-1, 3)),
        ([layer("GlobalAveragePooling2D", "out", "image", keepdims=True)], None),
        ([layer("Flatten", "f", "image"), layer("Reshape", "out", "f", target_shape=[96, 2])], (-1, 96, 2)),
        ([layer("Conv2D", "c", "image"), layer("Dense", "out", "c", units=5)], None),
        (
            [layer("Conv2D", "c", "image"), layer("Flatten", "f", "c"), layer("Dense", "out", "f", units=5)],
            (-1, 5),
        ),
        ([layer("Conv2D", "c", "image"), layer("GlobalMaxPooling2D", "out", "c")], (-1, -1)),
        ([layer("Conv2D", "c", "image"), layer("GlobalMaxPooling2D", "out", "c", keepdims=True)], None),
        ([layer("Conv2D", "out", "image", filters=4)], None),
        ([layer("Dropout", "out", "out")], None),
        ([layer("Dropout", "out", "nothing")], None),
    ],
)
def test_the_last_layers_of_a_keras_model_say_its_output(
    layers: list[dict[str, Any]], shape: tuple[int, ...] | None, tmp_path: Path
) -> None:
    config = {"layers": [IMAGE, *layers], "output_layers": [["out", 0, 0]]}
    assert outputs(tmp_path, config) == (None if shape is None else [("out", shape)])


def test_a_sequential_model_and_a_recorded_shape(tmp_path: Path) -> None:
    built = {**layer("Dense", "out", units=5), "build_config": {"input_shape": [None, 7]}}
    assert outputs(tmp_path, {"layers": [layer("Conv1D", "c"), built]}, kind="Sequential") == [
        ("out", (-1, 5))
    ]
    assert outputs(tmp_path, {"layers": []}, kind="Sequential") is None
    assert outputs(tmp_path, {}, kind="Sequential") is None


@pytest.mark.parametrize("ends", [None, [["out", 0, 1]], {"a": ["out", 0, 0]}, [[]]])
def test_outputs_in_another_form_are_not_certain(ends: Any, tmp_path: Path) -> None:
    dense = layer("Dense", "out", "image", units=5)
    assert outputs(tmp_path, {"layers": [IMAGE, dense], "output_layers": ends}) is None


MAKE = """
import json, sys, keras
from keras import layers
image = keras.Input((16, 12, 3), name="image")
x = layers.Conv2D(4, 3, activation="relu")(image)
pooled = layers.GlobalMaxPooling2D()(x)
scores = layers.Dense(6, activation="softmax", name="scores")(layers.Dropout(0.1)(pooled))
boxes = layers.Reshape((4, 2), name="boxes")(layers.Dense(8)(layers.Flatten()(x)))
mask = layers.Activation("sigmoid", name="mask")(layers.Dense(2)(x))
models = {
    "functional": keras.Model(image, [scores, boxes]),
    "mapped": keras.Model(image, mask),
    "sequential": keras.Sequential(
        [keras.Input((9,)), layers.Dense(4), layers.BatchNormalization(), layers.ReLU()]
    ),
    "convolution": keras.Model(image, x),
}
for name, model in models.items():
    model.save(f"{sys.argv[1]}/{name}.keras")
    model.save(f"{sys.argv[1]}/{name}.h5")
    shapes = [[-1 if size is None else size for size in output.shape] for output in model.outputs]
    open(f"{sys.argv[1]}/{name}.json", "w").write(json.dumps(shapes))
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models in both formats, and the shapes of their outputs. A process of its own keeps TensorFlow away."""
    folder = tmp_path_factory.mktemp("keras")
    argv = [sys.executable, "-P", "-c", MAKE, str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.mark.convert
@pytest.mark.slow
@pytest.mark.parametrize("name", ["functional", "sequential", "mapped", "convolution"])
def test_they_are_those_of_models_that_keras_wrote(name: str, written: Path) -> None:
    real = [tuple(shape) for shape in json.loads((written / f"{name}.json").read_text())]
    # An .h5 file records no shapes between layers, and a convolution's is not computed here.
    certain = {SourceKind.KERAS: name != "convolution", SourceKind.LEGACY_KERAS: name[0] in "fs"}
    for kind, is_certain in certain.items():
        read = declared_outputs(written / f"{name}.{kind}", kind)
        assert (None if read is None else [each.shape for each in read]) == (real if is_certain else None)
