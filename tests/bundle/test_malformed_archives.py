"""Archives that are damaged or built as traps: each is EQ600 or EQ601 in one line, within bounds."""

from __future__ import annotations

import io
import random
import re
import stat
import struct
import subprocess
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from edgeq.bundle.archive import parse_bundle, read_bundle
from edgeq.cli import main
from edgeq.errors import BundleAltered, BundleError
from edgeq.testing.tiny_bundle import write_tiny_bundle

METHODS = {
    "stored": zipfile.ZIP_STORED,
    "deflated": zipfile.ZIP_DEFLATED,
    "bzip2": zipfile.ZIP_BZIP2,
    "lzma": zipfile.ZIP_LZMA,
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the bytes of a bundle without a fault."""
    path = tmp_path_factory.mktemp("bundle") / "a.eqb"
    write_tiny_bundle(path)
    return path.read_bytes()


def packed(data: bytes, method: int) -> bytes:
    """Return a bundle with its members packed by another method."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(out, "w", method) as target:
        for name in archive.namelist():
            target.writestr(name, archive.read(name))
    return out.getvalue()


def outcome(data: bytes) -> str:
    """Return the code of what a bundle's bytes give, or `good`; another exception fails the test."""
    try:
        parse_bundle(data, subject="a.eqb")
    except BundleError as error:
        code, message = error.reported_code, error.message
    else:
        return "good"
    assert "\n" not in message
    assert len(message) < 1000
    return code


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One member of a zip that is built header by header; None states the truth."""

    name: bytes
    content: bytes
    method: int = 0
    flags: int = 0
    crc32: int | None = None
    packed_bytes: int | None = None
    size_bytes: int | None = None
    extra: bytes = b""
    mode: int = stat.S_IFREG | 0o644
    local_name: bytes | None = None
    local_size_bytes: int | None = None
    offset: int | None = None
    descriptor: bytes = b""


def built(parts: list[Part], *, between: bytes = b"", after: bytes = b"", count: int | None = None) -> bytes:
    """Return a zip of these members, whose headers may contradict each other."""
    body, directory = b"", b""
    for part in parts:
        crc = zlib.crc32(part.content) if part.crc32 is None else part.crc32
        content = part.content
        if part.method == 8:
            packer = zlib.compressobj(wbits=-15)
            content = packer.compress(content) + packer.flush()
        packed_bytes = len(content) if part.packed_bytes is None else part.packed_bytes
        size = len(part.content) if part.size_bytes is None else part.size_bytes
        local_name = part.name if part.local_name is None else part.local_name
        local_size = size if part.local_size_bytes is None else part.local_size_bytes
        offset = len(body) if part.offset is None else part.offset
        directory += struct.pack(
            "<4sHHHHHHIIIHHHHHII", b"PK\x01\x02", 0x314, 20, part.flags, part.method, 0, 0x21, crc,
            packed_bytes, size, len(part.name), len(part.extra), 0, 0, 0, part.mode << 16, offset,
        ) + part.name + part.extra  # fmt: skip
        local = (0, 0, 0) if part.descriptor else (crc, packed_bytes, local_size)
        body += (
            struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", 20, part.flags, part.method, 0, 0x21, *local,
                        len(local_name), len(part.extra))
            + local_name + part.extra + content + part.descriptor
        )  # fmt: skip
    number = len(parts) if count is None else count
    end = struct.pack(
        "<4sHHHHIIH", b"PK\x05\x06", 0, 0, number, number, len(directory), len(body + between), 0
    )
    return body + between + directory + end + after


def parts_of(data: bytes) -> list[Part]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [Part(name=name.encode(), content=archive.read(name)) for name in archive.namelist()]


def test_the_builder_of_these_tests_builds_a_bundle(good: bytes) -> None:
    assert outcome(built(parts_of(good))) == "good"


@pytest.mark.parametrize(("method", "expected"), [("stored", "good"), ("deflated", "good")])
def test_stored_and_deflated_members_are_read(good: bytes, method: str, expected: str) -> None:
    assert outcome(packed(good, METHODS[method])) == expected


@pytest.mark.parametrize("method", ["bzip2", "lzma"])
def test_other_methods_are_refused_by_name(good: bytes, method: str) -> None:
    with pytest.raises(BundleError, match=f"is {method}; a bundle's are stored or deflated"):
        parse_bundle(packed(good, METHODS[method]), subject="a.eqb")


def test_a_bundle_that_the_zip_program_packed_again_is_read(good: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        archive.extractall(folder)
    names = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
    try:
        subprocess.run(["zip", "-q", "../again.eqb", *names], cwd=folder, check=True)
        streamed = subprocess.run(["zip", "-q", "-", *names], cwd=folder, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("zip is not installed (apt-get install zip)")
    assert read_bundle(tmp_path / "again.eqb").model == "double"
    # Written to a pipe, it is a zip64.
    assert outcome(streamed.stdout) in ("good", "EQ600")


SECOND: dict[str, Callable[[Part], Part]] = {
    "encrypted": lambda part: replace(part, flags=1),
    "strong encryption": lambda part: replace(part, flags=0x41),
    "masked headers": lambda part: replace(part, flags=0x2000),
    "a patch": lambda part: replace(part, flags=0x20),
    "deflate64": lambda part: replace(part, method=9),
    "bzip2": lambda part: replace(part, method=12),
    "lzma": lambda part: replace(part, method=14),
    "zstandard": lambda part: replace(part, method=93),
    "AES": lambda part: replace(part, method=99),
    "an unknown method": lambda part: replace(part, method=0xFFFF),
    "zip64 size": lambda part: replace(
        part, extra=struct.pack("<HHQQ", 1, 16, 1 << 40, 1 << 40), size_bytes=0xFFFFFFFF
    ),
    "zip64 extra without need": lambda part: replace(part, extra=struct.pack("<HHQ", 1, 8, 3)),
    "zip64 extra cut off": lambda part: replace(part, extra=struct.pack("<HH", 1, 900)),
    "extra of three bytes": lambda part: replace(part, extra=b"abc"),
    "two names": lambda part: replace(part, extra=struct.pack("<HHBI4s", 0x7075, 9, 1, 0, b"evil")),
    "offset at the end": lambda part: replace(part, offset=0xFFFFFFFF),
    "offset below 2 GB": lambda part: replace(part, offset=0x7FFFFFFF),
    "offset one too far": lambda part: replace(part, offset=1),
    "overlapping": lambda part: replace(part, offset=0),
    "more packed than there is": lambda part: replace(part, packed_bytes=0x7FFFFFFF, size_bytes=0x7FFFFFFF),
    "packed to nothing": lambda part: replace(part, packed_bytes=0),
    "another name in its own header": lambda part: replace(part, local_name=b"signatures.jsox"),
    "another size in its own header": lambda part: replace(part, local_size_bytes=1),
    "a wrong checksum": lambda part: replace(part, crc32=1),
    "a descriptor that contradicts": lambda part: replace(
        part, flags=8, descriptor=struct.pack("<4sIII", b"PK\x07\x08", 1, 2, 3)
    ),
    "a name of no bytes": lambda part: replace(part, name=b""),
    "a name with NUL": lambda part: replace(part, name=b"signatures.json\0.txt"),
    "a name with ESC": lambda part: replace(part, name=b"\x1b]0;evil\x07"),
    "a name that is not UTF-8": lambda part: replace(part, name=b"\xff\xfe\xfd", flags=0x800),
    "a name in another alphabet": lambda part: replace(
        part, name="\N{LATIN SMALL LETTER LONG S}ignatures.json".encode(), flags=0x800
    ),
    "a name of 60,000 bytes": lambda part: replace(part, name=b"a" * 60_000),
    "deflated, states less": lambda part: replace(part, method=8, size_bytes=5),
    "deflated, states more": lambda part: replace(part, method=8, size_bytes=len(part.content) + 1),
    "not deflated at all": lambda part: replace(
        part, method=0, flags=0, size_bytes=len(part.content), packed_bytes=None, crc32=0
    ),
}


@pytest.mark.parametrize("trap", SECOND)
def test_a_member_that_is_a_trap_is_refused(good: bytes, trap: str) -> None:
    parts = parts_of(good)
    parts[1] = SECOND[trap](parts[1])
    assert outcome(built(parts)) == "EQ600"


@pytest.mark.parametrize(
    ("kind", "code"),
    [(stat.S_IFLNK, "EQ601"), (stat.S_IFIFO, "EQ601"), (stat.S_IFCHR, "EQ601"), (stat.S_IFSOCK, "EQ601")],
)
def test_members_of_other_types(good: bytes, kind: int, code: str) -> None:
    parts = parts_of(good)
    parts[2] = replace(parts[2], mode=kind | 0o644)
    assert outcome(built(parts)) == code


@pytest.mark.parametrize(
    "name",
    ["../evil", "files/../../evil", "/etc/evil", "files//evil", "files/x\\..\\evil", "C:\\evil", "files/",
     "files/./evil", "FILES/MODEL.TFLITE", "manifest.json/", "files/evil\n"],
)  # fmt: skip
def test_zip_slip(good: bytes, name: str) -> None:
    """A member that would leave its folder: of no name that the manifest can list."""
    extra = Part(name=name.encode(), content=b"evil")
    assert outcome(built([*parts_of(good), extra])) in ("EQ600", "EQ601")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_duplicate_members(good: bytes, number: int) -> None:
    parts = parts_of(good)
    with pytest.raises(BundleAltered, match="twice"):
        parse_bundle(built([*parts, parts[number]]), subject="a.eqb")


def test_bytes_that_belong_to_no_member(good: bytes) -> None:
    parts = parts_of(good)
    plain = built(parts)
    comment = plain[:-2] + struct.pack("<H", 4) + b"evil"
    shifted = b"#!/bin/sh\n" + plain
    gap = [parts[0], replace(parts[1], offset=len(built(parts[:1])))]
    for data in (built(parts, between=b"evil"), built(parts, after=b"evil"), comment, shifted, built(gap)):
        assert outcome(data) == "EQ600"


@pytest.mark.parametrize("count", [0, 4, 6, 0xFFFF])
def test_a_directory_that_states_another_number_of_members(good: bytes, count: int) -> None:
    assert outcome(built(parts_of(good), count=count)) == "EQ600"


@pytest.mark.slow
def test_more_members_than_a_bundle_has(good: bytes) -> None:
    extra = [Part(name=b"files/%d" % number, content=b"") for number in range(20_000)]
    assert outcome(built([*parts_of(good), *extra])) == "EQ600"


@pytest.mark.slow
def test_a_zip64_directory_is_refused(good: bytes) -> None:
    out = io.BytesIO(good)
    with zipfile.ZipFile(out, "a") as archive:
        for number in range(66_000):
            archive.writestr(f"files/{number}", b"")
    assert outcome(out.getvalue()) == "EQ600"


def zeros(size_bytes: int) -> Part:
    return Part(name=b"files/zeros", content=bytes(size_bytes), method=8)


def test_a_bomb_is_refused_before_it_is_unpacked(good: bytes) -> None:
    """A member that the manifest does not list, and one that is larger than the manifest says."""
    parts = parts_of(good)
    unlisted = built([*parts, zeros(24 << 20)])
    model = next(number for number, part in enumerate(parts) if part.name == b"files/model.tflite")
    parts[model] = replace(zeros(24 << 20), name=b"files/model.tflite")
    larger = built(parts)
    document = built([replace(zeros(24 << 20), name=b"manifest.json"), *parts[1:]])
    liar = built([*parts[1:], replace(zeros(24 << 20), name=b"manifest.json", size_bytes=700)])
    for data in (unlisted, larger, document, liar):
        assert len(data) < 1 << 20
        tracemalloc.start()
        assert outcome(data) in ("EQ600", "EQ601")
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak_bytes < 4 << 20


@pytest.mark.parametrize("depth", [100, 900, 5_000, 200_000])
def test_a_manifest_or_reference_that_is_nested_deep(good: bytes, depth: int) -> None:
    nested = b'{"lineage":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"
    for name in (b"manifest.json", b"signatures.json", b"files/reference.json"):
        parts = [replace(part, content=nested) if part.name == name else part for part in parts_of(good)]
        assert outcome(built(parts)) in ("EQ600", "EQ601", "EQ603")


OTHERS = {
    "nothing": b"",
    "a text": b"hello\n",
    "an ELF program": b"\x7fELF" + bytes(200),
    "a gzip": b"\x1f\x8b\x08" + bytes(50),
    "the end of a zip": b"PK\x05\x06" + bytes(18),
    "a local header": b"PK\x03\x04" + bytes(40),
    "only ends of zips": b"PK\x05\x06" * 400,
    "only 0xFF": b"\xff" * 4000,
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_file_of_another_kind(kind: str) -> None:
    assert outcome(OTHERS[kind]) == "EQ600"


def test_a_zip_of_another_kind(good: bytes) -> None:
    """A wheel, an .npz, a Keras model: readable zips, and no bundles."""
    for name in (b"edgeq/__init__.py", b"input_0.npy", b"config.json", b"META-INF/MANIFEST.MF"):
        with pytest.raises(BundleError, match=r"zip without it"):
            parse_bundle(built([Part(name=name, content=b"x")]), subject="a.eqb")


def mutated(data: bytes, seed: int) -> bytes:
    """Return a bundle with one to four bytes changed, in its headers two times out of three."""
    chance = random.Random(seed)  # noqa: S311 - the same damage every time
    headers = [match.start() for match in re.finditer(rb"PK(\x01\x02|\x03\x04|\x05\x06)", data)]
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        if chance.random() < 0.67:
            position = min(chance.choice(headers) + chance.randrange(46), len(data) - 1)
        else:
            position = chance.randrange(len(data))
        value = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256), changed[position] ^ 1])
        changed[position] = value
    return bytes(changed)


@pytest.mark.parametrize("method", METHODS)
def test_flipped_bytes(good: bytes, method: str) -> None:
    """Each gives a documented error, or (a time, a flag of the packer) the same bundle."""
    _flip(packed(good, METHODS[method]), range(400))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_many_flipped_bytes(good: bytes, method: str) -> None:
    _flip(packed(good, METHODS[method]), range(400, 12_000))


def _flip(data: bytes, seeds: range) -> None:
    release = parse_bundle(data, subject="a.eqb").release if outcome(data) == "good" else None
    codes = set()
    for seed in seeds:
        changed = mutated(data, seed)
        code = outcome(changed)
        codes.add(code)
        if code == "good":
            assert parse_bundle(changed, subject="a.eqb").release == release
    assert codes <= {"good", "EQ600", "EQ601", "EQ603"}
    assert "EQ600" in codes


@pytest.mark.parametrize("step", [7])
def test_cut_at_many_places(good: bytes, step: int) -> None:
    for data in (good, packed(good, zipfile.ZIP_DEFLATED)):
        for size in range(0, len(data), step):
            assert outcome(data[:size]) == "EQ600"


def test_the_command_says_it_in_one_line(
    good: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.eqb"
    path.write_bytes(packed(good, zipfile.ZIP_LZMA))
    assert main(["--workspace", str(tmp_path), "bundle", "verify", str(path)]) == 1
    first, hint = capsys.readouterr().err.splitlines()
    assert first.startswith("error[EQ600]")
    assert hint.startswith("hint: ")
