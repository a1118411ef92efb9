"""Zips that devices read, an .npz or a wheel: damage is EQ512 or EQ503, never a bug, and takes no memory."""

from __future__ import annotations

import io
import random
import shutil
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeq_agent.errors import AgentError
from edgeq_agent.inference.npz import open_npz
from edgeq_agent.runtimes import wheels

METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
ARRAY = np.arange(24, dtype=np.float32).reshape(4, 6)


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def npy(array: object) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, np.asarray(array), allow_pickle=True)
    return out.getvalue()


def with_header(header: str, data: bytes = b"") -> bytes:
    """Return an array's file whose header is this text."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def code_of(read: Callable[[str], object], path: Path, data: bytes) -> str:
    path.write_bytes(data)
    try:
        read(str(path))
    except AgentError as error:
        code, problem = error.code, error.problem
    else:
        return "good"
    assert "\n" not in problem
    return code


def read_npz(path: str) -> object:
    return open_npz(path, "payload")


def read_wheel(path: str) -> object:
    folder = Path(path).with_suffix(".site")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    wheels.unpacked_size(path, "x.whl")
    wheels.unpack(path, "x.whl", str(folder))
    return None


def test_arrays_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    arrays = {
        "a": ARRAY, "b": np.asfortranarray(ARRAY), "c": np.array(3), "d": np.zeros((0, 4), np.int8),
        "e": np.array(["x", "yz"]), "f": ARRAY.astype(">f8"),
    }  # fmt: skip
    for save in (np.savez, np.savez_compressed):
        save(path, **arrays)  # type: ignore[arg-type]
        loaded = open_npz(str(path), "payload")
        assert list(loaded) == list(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(loaded[name], array)
            assert loaded[name].dtype == array.dtype


HEADERS = [
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -6), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (7,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': 6, }",
    "{'descr': '<f4', 'fortran_order': 1, 'shape': (6,), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (3,), }",
    "{'descr': '|V0', 'fortran_order': False, 'shape': (999999999,), }",
    "{'descr': '<U0', 'fortran_order': False, 'shape': (999999999,), }",
    "{'descr': 'nonsense', 'fortran_order': False, 'shape': (6,), }",
    "{'descr': [('a', '<f4'), ('b', '|O')], 'fortran_order': False, 'shape': (3,), }",
    "{'descr': '<f4', 'shape': (6,), }",
    "__import__('os')",
    "(" * 9_000,
    "[" * 60_000,
    "{'a': " * 1_500,
    "",
    "9" * 9_000,
    "-" * 9_000 + "1",
]


@pytest.mark.parametrize("header", HEADERS, ids=range(len(HEADERS)))
def test_an_arrays_header_that_is_wrong_is_refused(tmp_path: Path, header: str) -> None:
    """Also one that states a shape for which no device has the memory."""
    data = zipped({"input_0.npy": with_header(header, bytes(24))})
    tracemalloc.start()
    assert code_of(read_npz, tmp_path / "a.npz", data) == "EQ512"
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 64 << 20


@pytest.mark.parametrize(
    "data", [b"", b"x", b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff", b"\x93NUMPY\x09\x00" + bytes(50)]
)
def test_a_member_that_is_not_an_array_is_refused(tmp_path: Path, data: bytes) -> None:
    assert code_of(read_npz, tmp_path / "a.npz", zipped({"input_0.npy": data})) == "EQ512"


def test_other_methods_and_encryption_are_refused(tmp_path: Path) -> None:
    npz, wheel = {"input_0.npy": npy(ARRAY)}, {"x/__init__.py": b"pass" * 50}
    for method in METHODS[2:]:
        assert code_of(read_npz, tmp_path / "a.npz", zipped(npz, method)) == "EQ512"
        assert code_of(read_wheel, tmp_path / "a.whl", zipped(wheel, method)) == "EQ503"
    for read, members, code in ((read_npz, npz, "EQ512"), (read_wheel, wheel, "EQ503")):
        data = bytearray(zipped(members))
        data[6] |= 1
        data[data.index(b"PK\x01\x02") + 8] |= 1
        assert code_of(read, tmp_path / "b", bytes(data)) == code


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "names",
    [["x", "x/y"], ["x/y", "x"], ["x", "x"], ["a" * 300], ["x/" + "a" * 256 + "/y"], ["x//y"], ["x/./y"]],
)
def test_members_that_cannot_lie_side_by_side(tmp_path: Path, names: list[str]) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    assert code_of(read_wheel, tmp_path / "a.whl", out.getvalue()) == "EQ503"


def flipped(data: bytes, seed: int) -> bytes:
    """Return the zip with up to four bytes changed, mostly in its directory."""
    chance = random.Random(seed)  # noqa: S311 - the same damage every time
    directory = data.index(b"PK\x01\x02")
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        first = directory if chance.random() < 0.6 else 0
        at = chance.randrange(first, len(data))
        changed[at] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, changed[at] ^ 1, chance.randrange(256)])
    return bytes(changed)


def flip(tmp_path: Path, method: int, seeds: range) -> None:
    npz = zipped({"input_0.npy": npy(ARRAY), "output_0.npy": npy(ARRAY[:, 0])}, method)
    wheel = zipped({"x/__init__.py": b"pass" * 50, "x-1.dist-info/METADATA": b"Name: x\n"}, method)
    for seed in seeds:
        assert code_of(read_npz, tmp_path / "a.npz", flipped(npz, seed)) in ("good", "EQ512")
        assert code_of(read_wheel, tmp_path / "a.whl", flipped(wheel, seed)) in ("good", "EQ503")


@pytest.mark.first_is_quick
@pytest.mark.parametrize("method", METHODS)
def test_flipped_bytes(tmp_path: Path, method: int) -> None:
    flip(tmp_path, method, range(100))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_many_flipped_bytes(tmp_path: Path, method: int) -> None:
    flip(tmp_path, method, range(100, 700))
