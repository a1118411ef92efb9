"""The bundle as a file: reproducible, checked whole, never half written."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from edgeq.bundle.archive import entry_of, read_bundle, write_bundle
from edgeq.errors import BundleAltered, BundleError

REFERENCE = {
    "schema": "edgeq.reference/1",
    "inputs": [],
    "output": {"predicted": [1, 2], "confidence": {"edges": [0.0, 1.0], "counts": [3]}},
}
FILES = {"model.tflite": b"model", "golden.npz": b"golden", "reference.json": json.dumps(REFERENCE).encode()}


def manifest(**changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "schema": "edgeq.manifest/1",
        "model": "digits",
        "variant": "int8",
        "created_by": "edgeq 0.1.0",
        "files": {name: entry_of(data) for name, data in FILES.items()},
        "golden": {
            "file": "golden.npz",
            "samples": 4,
            "max_steps": 1,
            "atol": 0.0,
            "rtol": 0.0,
            "runtime": {"module": "ai_edge_litert", "version": "2.3.0", "machine": "x86_64"},
        },
        "reference": {"file": "reference.json"},
        "requires": {"kinds": [], "free_bytes": 0},
        "limits": {"latency_p95_ns": None, "memory_peak_bytes": None},
        "labels": [],
        "lineage": {},
    }
    return {**document, **changes}


def test_it_reads_back_what_was_written(tmp_path: Path) -> None:
    written = write_bundle(tmp_path / "a.eqb", manifest(), FILES)
    bundle = read_bundle(tmp_path / "a.eqb")
    assert bundle == written
    assert bundle.model == "digits"
    assert bundle.open("model.tflite") == b"model"
    assert {ref.name: bundle.read(sha256) for sha256, ref in bundle.blobs.items()} == FILES
    assert bundle.size_bytes == sum(map(len, FILES.values()))


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    write_bundle(tmp_path / "a.eqb", manifest(), FILES)
    backwards = {name: FILES[name] for name in reversed(FILES)}
    write_bundle(tmp_path / "b.eqb", dict(reversed(manifest().items())), backwards)
    assert (tmp_path / "a.eqb").read_bytes() == (tmp_path / "b.eqb").read_bytes()


def test_the_release_is_the_digest_of_the_manifest(tmp_path: Path) -> None:
    one = write_bundle(tmp_path / "a.eqb", manifest(), FILES)
    other = write_bundle(tmp_path / "b.eqb", manifest(variant="float16"), FILES)
    assert one.release != other.release
    assert len(one.release) == 64


def rezip(path: Path, change: dict[str, bytes | None]) -> None:
    """Write the archive again with members changed, added, or (None) left out."""
    with zipfile.ZipFile(path) as archive:
        members: dict[str, bytes | None] = {name: archive.read(name) for name in archive.namelist()}
    members.update(change)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            if data is not None:
                archive.writestr(name, data)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"files/model.tflite": b"other"}, "model.tflite"),
        ({"files/model.tflite": None}, "files/model.tflite"),
        ({"files/extra": b"x"}, "files/extra"),
        ({"files/../../evil": b"x"}, "evil"),
    ],
)
def test_an_altered_bundle_is_refused(tmp_path: Path, change: dict[str, bytes | None], words: str) -> None:
    path = tmp_path / "a.eqb"
    write_bundle(path, manifest(), FILES)
    rezip(path, change)
    with pytest.raises(BundleAltered, match=words):
        read_bundle(path)


@pytest.mark.parametrize("cut", [0, 1, 30, 200, -1])
def test_a_truncated_bundle_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.eqb"
    write_bundle(path, manifest(), FILES)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(BundleError):
        read_bundle(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema": "edgeq.manifest/9"}, "schema"),
        ({"model": "../up"}, "model"),
        ({"files": {"../up": entry_of(b"")}}, "file name"),
        ({"files": {"model.tflite": {"sha256": "xyz", "size_bytes": 1}}}, "sha256"),
        ({"files": {"model.tflite": entry_of(b"model")}}, "golden.npz"),
        ({"golden": None}, "golden"),
        # The device reads numbers strictly; what it would refuse is refused here.
        ({"counter": "1"}, "counter"),
        ({"counter": True}, "counter"),
        ({"counter": 2**53}, "counter"),
        ({"files": {"model.tflite": {**entry_of(b""), "size_bytes": "0"}}}, "size_bytes"),
        ({"files": {"model.tflite": {**entry_of(b""), "size_bytes": 1.0}}}, "size_bytes"),
        ({"files": {"model.tflite": {**entry_of(b""), "size_bytes": 2**60}}}, "size_bytes"),
        ({"files": {"model.tflite\n": entry_of(b"")}}, "file name"),
        ({"requires": {"kinds": "linux"}}, "kinds"),
        ({"requires": {"free_bytes": -1}}, "free_bytes"),
        ({"limits": {"latency_p95_ns": "1"}}, "latency_p95_ns"),
        ({"limits": {"memory_peak_bytes": 0}}, "memory_peak_bytes"),
        ({"labels": "abc"}, "labels"),
        ({"labels": [1]}, "labels"),
        ({"variant": None}, "variant"),
    ],
)
def test_a_manifest_that_is_wrong_is_refused_and_nothing_is_written(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    path = tmp_path / "a.eqb"
    path.write_bytes(b"what was there before")
    with pytest.raises(BundleError, match=words):
        write_bundle(path, manifest(**changes), FILES)
    assert path.read_bytes() == b"what was there before"


def test_what_a_later_version_adds_is_left_alone(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "a.eqb", manifest(signature="later"), FILES)
    assert bundle.manifest["signature"] == "later"


def test_no_bundle_at_all(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="No such file"):
        read_bundle(tmp_path / "none.eqb")
    (tmp_path / "text.eqb").write_text("hello")
    with pytest.raises(BundleError, match="expected a bundle"):
        read_bundle(tmp_path / "text.eqb")
    empty = io.BytesIO()
    with zipfile.ZipFile(empty, "w"):
        pass
    (tmp_path / "empty.eqb").write_bytes(empty.getvalue())
    with pytest.raises(BundleError, match="zip without it"):
        read_bundle(tmp_path / "empty.eqb")


def test_a_bundle_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeq.bundle.archive.LARGEST_BYTES", 10)
    with pytest.raises(BundleError, match="at most 10 bytes"):
        write_bundle(tmp_path / "a.eqb", manifest(), FILES)


def test_a_bundle_whose_drift_reference_is_not_one_is_refused(tmp_path: Path) -> None:
    files = {**FILES, "reference.json": b"{}"}
    document = manifest(files={name: entry_of(data) for name, data in files.items()})
    with pytest.raises(BundleError, match="drift reference: `schema`"):
        write_bundle(tmp_path / "a.eqb", document, files)
    assert not (tmp_path / "a.eqb").exists()
