"""Files that look like a model of ONNX or PyTorch and are not, or are not whole: one right line each."""

from __future__ import annotations

import collections
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeq_converters.errors import ConverterError
from edgeq_converters.sources import onnx_file
from edgeq_converters.sources.detect import SourceKind, detect


def varint(value: int) -> bytes:
    """Return a number as protobuf writes it."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def part(field: int, content: bytes | str) -> bytes:
    """Return a field with a text, bytes, or a message."""
    data = content.encode() if isinstance(content, str) else content
    return varint(field << 3 | 2) + varint(len(data)) + data


def tensor(*, external: dict[str, str] | None = None) -> bytes:
    """Return an initializer of four floats, with its values or with the file that has them."""
    head = number(1, 4) + number(2, 1) + part(8, "w")
    if external is None:
        return head + part(9, bytes(16))
    entries = b"".join(part(13, part(1, key) + part(2, value)) for key, value in external.items())
    return head + entries + number(14, 1)


def onnx(*initializers: bytes, node: bytes = b"") -> bytes:
    """Return an ONNX model y = x + w."""
    add = part(1, part(1, "x") + part(1, "w") + part(2, "y") + part(4, "Add") + node)
    graph = add + part(2, "g") + b"".join(part(5, each) for each in initializers)
    return number(1, 8) + part(2, "pytorch") + part(3, "2.5.0") + part(7, graph) + part(8, number(2, 17))


WHOLE = onnx(tensor())
SAVED_MODEL = number(1, 1) + part(2, part(1, part(5, "serve") + bytes([0x22, 3, 0xFF, 0xFE, 0])))
GRAPH_DEF = part(1, part(1, "x") + part(2, "Placeholder"))


def refusal(path: Path, content: bytes, read: Callable[[Path], Any] = detect) -> ConverterError:
    path.write_bytes(content)
    with pytest.raises(ConverterError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (SAVED_MODEL, "a protobuf of another message"),
        (GRAPH_DEF, "a protobuf of another message"),
        (part(99, "x"), "a protobuf of another message"),
        (b"\xff" * 40, "a file that is not a protobuf"),
        (b"PNG and more text than a field can hold", "a file that is not a protobuf"),
    ],
)
def test_a_file_that_is_not_onnx_is_called_so(content: bytes, got: str, tmp_path: Path) -> None:
    error = refusal(tmp_path / "m.onnx", content)
    assert (error.code, error.got) == ("EQ302", got)
    assert "truncated" not in str(error)


def test_a_whole_model_passes(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(WHOLE)
    assert detect(path) is SourceKind.ONNX
    onnx_file.require_whole(path)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(1, len(WHOLE) - 1))
def test_a_cut_model_is_truncated_or_ends_between_two_fields(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(WHOLE[:cut])
    try:
        detect(path)
        onnx_file.require_whole(path)
    except ConverterError as error:
        assert (error.code, "truncated or damaged" in str(error)) in {("EQ305", True), ("EQ302", False)}  # noqa: PT017
    if cut > 40:  # within the graph or after it
        ends = {len(WHOLE) - len(part(8, number(2, 17)))}
        if cut not in ends:
            assert refusal(path, WHOLE[:cut], onnx_file.require_whole).code == "EQ305"


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300))
def test_any_bytes_are_judged_without_a_traceback(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    for read in (detect, onnx_file.require_whole):
        try:
            read(path)
        except ConverterError as error:
            assert error.code in {"EQ302", "EQ305"}  # noqa: PT017


@pytest.mark.parametrize("place", ["initializer", "constant of a node"])
def test_weights_in_another_file_must_be_there(place: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"

    def content(**external: str) -> bytes:
        values = tensor(external=external)
        return (
            onnx(values) if place == "initializer" else onnx(node=part(5, part(1, "value") + part(5, values)))
        )

    here = content(location="m.onnx.data", offset="16", length="16")
    error = refusal(path, here, onnx_file.require_whole)
    assert (error.code, "which is missing: m.onnx.data" in str(error)) == ("EQ305", True)
    (tmp_path / "m.onnx.data").write_bytes(bytes(20))
    assert "is truncated: m.onnx.data" in str(refusal(path, here, onnx_file.require_whole))
    (tmp_path / "m.onnx.data").write_bytes(bytes(32))
    onnx_file.require_whole(path)
    for outside in ("../w", "/w"):
        error = refusal(path, content(location=outside, length="1"), onnx_file.require_whole)
        assert "in another folder" in str(error)


class Net:
    """Stands for a class of the user's."""


def archive(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return stream.getvalue()


WEIGHTS = pickle.dumps(collections.OrderedDict(w=[1.0]), protocol=2)
MODULE = pickle.dumps(Net(), protocol=2)


@pytest.mark.parametrize("suffix", ["pt", "pt2", "pth", "bin"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (archive(**{"m/data.pkl": WEIGHTS, "m/version": b"3"}), "a PyTorch checkpoint (state_dict)"),
        (archive(**{"m/data.pkl": MODULE, "m/version": b"3"}), "a pickled PyTorch module"),
        (archive(**{"m/data.pkl": MODULE, "m/constants.pkl": WEIGHTS}), "a TorchScript file"),
        (archive(**{"m/data.pkl": MODULE, "m/code/__torch__.py": b""}), "a TorchScript file"),
        (pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + WEIGHTS, "before PyTorch 1.6"),
        (WEIGHTS, "a Python pickle"),
    ],
)
def test_what_pytorch_saves_besides_programs_is_named(
    content: bytes, what: str, suffix: str, tmp_path: Path
) -> None:
    error = refusal(tmp_path / f"m.{suffix}", content)
    assert error.code == "EQ302"
    assert what in str(error)
    assert "torch.export.save" in str(error.hint)
    assert "truncated" not in str(error)


@pytest.mark.parametrize("suffix", ["pt", "pt2", "pth", "keras"])
def test_an_archive_that_is_cut_is_damaged(suffix: str, tmp_path: Path) -> None:
    content = archive(**{"m/archive_format": b"pt2", "m/weights": bytes(900)})
    error = refusal(tmp_path / f"m.{suffix}", content[: len(content) // 2])
    assert (error.code, "truncated or damaged" in str(error)) == ("EQ305", True)


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    content = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    for name in ("m.tflite", "m.keras", "m.onnx", "m.pt2"):
        error = refusal(tmp_path / name, content)
        assert (error.code, error.hint) == ("EQ302", "git lfs pull")
