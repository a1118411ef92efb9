"""The lineage of conversions, and rebuilding a file from its record."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.conversion import convert
from edgeq.conversion.lineage import SCHEMA, file_record, lineages
from edgeq.conversion.reproduce import differences, reproduce
from edgeq.errors import ModelError
from edgeq.files import sha256_of
from edgeq.store import Store

pytestmark = pytest.mark.convert
Edgeq = Callable[..., Any]


@pytest.fixture
def shop(models: Path, data: Path, tmp_path: Path) -> Path:
    """A workspace with a source and calibration data."""
    shutil.copy(models / "float.tflite", tmp_path / "float.tflite")
    shutil.copy(data, tmp_path / "c.npz")
    return tmp_path


def int8(shop: Path, edgeq: Edgeq, *more: object) -> Any:
    result = edgeq(
        "--workspace", shop, "convert", shop / "float.tflite", "-o", shop / "int8.tflite", "--scheme", "int8",
        "--calibration", shop / "c.npz", "--json", "--effort", "quick", *more,
    )  # fmt: skip
    assert result.status == 0, result.err
    return json.loads(result.out)


@pytest.mark.slow
def test_every_conversion_has_a_lineage(shop: Path, edgeq: Edgeq) -> None:
    lineage = int8(shop, edgeq)["lineage"]
    assert lineage["schema"] == SCHEMA
    for name, file in {"source": "float.tflite", "output": "int8.tflite"}.items():
        assert lineage[name]["sha256"] == sha256_of(shop / file)
        assert lineage[name]["path"] == str(shop / file)
    assert lineage["data"]["calibration"]["sha256"] == sha256_of(shop / "c.npz")
    assert lineage["recipe"]["scheme"] == "int8"
    assert len(lineage["recipe_sha256"]) == 64
    assert lineage["seed"] == lineage["recipe"]["seed"]
    assert {"edgeq", "litert-quantizer", "ai-edge-litert", "numpy"} <= set(lineage["tools"])
    assert set(lineage["environment"]) == {"python", "machine", "processor"}


@pytest.mark.slow
def test_lineage_goes_back_to_the_source(shop: Path, models: Path, edgeq: Edgeq) -> None:
    (shop / "float.tflite").unlink()
    command = ["--workspace", shop, "convert", models / "plain_saved_model", "-o", shop / "float.tflite"]
    assert edgeq(*command, "--scheme", "float32").status == 0
    digest = int8(shop, edgeq)["sha256"]
    for what in (shop / "int8.tflite", digest, digest[:8]):
        result = edgeq("--workspace", shop, "lineage", what, "--json")
        assert result.status == 0, result.err
        links = json.loads(result.out)["lineage"]
        assert [Path(link["source"]["path"]).name for link in links] == ["float.tflite", "plain_saved_model"]
    text = edgeq("--workspace", shop, "lineage", digest[:8]).out
    assert digest[:12] in text
    assert "scheme=int8" in text
    assert edgeq("--workspace", shop, "reproduce", shop / "float.tflite").status == 0


@pytest.mark.slow
def test_a_bundle_leads_to_its_model(shop: Path, edgeq: Edgeq) -> None:
    digest = int8(shop, edgeq)["sha256"]
    command = ["--workspace", shop, "bundle", shop / "int8.tflite", "-o", shop / "m.eqb", "--name", "m"]
    result = edgeq(*command, "--data", shop / "c.npz", "--json")
    assert result.status == 0, result.err
    for what in (shop / "m.eqb", json.loads(result.out)["release"][:10]):
        document = json.loads(edgeq("--workspace", shop, "lineage", what, "--json").out)
        assert document["lineage"][0]["output"]["sha256"] == digest


@pytest.mark.slow
def test_a_rebuilt_file_has_the_same_bytes(shop: Path, edgeq: Edgeq) -> None:
    digest = int8(shop, edgeq, "--io", "float32", "--effort", "standard")["sha256"]
    again = shop / "again.tflite"
    result = edgeq("--workspace", shop, "reproduce", digest[:10], "-o", again, "--json")
    assert result.status == 0, result.err
    document = json.loads(result.out)
    assert (document["same"], document["sha256"], document["differs"]) == (True, digest, [])
    assert sha256_of(again) == digest


@pytest.mark.slow
def test_a_moved_file_can_be_passed(shop: Path, edgeq: Edgeq) -> None:
    int8(shop, edgeq)
    for name in ("float.tflite", "c.npz"):
        (shop / name).rename(shop / f"moved-{name}")
    result = edgeq("--workspace", shop, "reproduce", shop / "int8.tflite")
    assert (result.status, result.out) == (1, "")
    assert "error[EQ324]" in result.err
    assert f"its source is missing: {shop / 'float.tflite'}" in result.err
    assert "--source PATH" in result.err
    moved = ["--source", shop / "moved-float.tflite", "--calibration", shop / "moved-c.npz"]
    assert edgeq("--workspace", shop, "reproduce", shop / "int8.tflite", *moved).status == 0


@pytest.mark.slow
def test_a_changed_file_is_named(shop: Path, edgeq: Edgeq) -> None:
    int8(shop, edgeq)
    random = np.random.default_rng(0)
    np.savez(shop / "c.npz", x=random.normal(size=(9, 8, 8, 1)).astype(np.float32))
    result = edgeq("--workspace", shop, "reproduce", shop / "int8.tflite")
    assert (result.status, result.out) == (1, "")
    assert "error[EQ324]" in result.err
    assert "its calibration has changed" in result.err
    assert f"got {sha256_of(shop / 'c.npz')[:12]}" in result.err


@pytest.mark.slow
def test_other_tools_are_named_where_the_bytes_differ(shop: Path, edgeq: Edgeq) -> None:
    document = int8(shop, edgeq)
    lineage = document["lineage"]
    # As if another version had written the file, with another digest.
    lineage["output"]["sha256"] = "ab" * 32
    lineage["tools"]["litert-quantizer"] = "0.9.0"
    lineage["environment"]["processor"] = "an older one"
    with Store.open(shop) as store:
        store.record_run("convert", "int8", document)
    result = edgeq("--workspace", shop, "reproduce", "abab")
    assert (result.status, result.out) == (1, "")
    assert "error[EQ324]: abababababab: the rebuilt file has different bytes" in result.err
    assert "litert-quantizer was 0.9.0, is " in result.err
    assert "processor was an older one, is " in result.err


def test_a_file_without_a_record(shop: Path, edgeq: Edgeq) -> None:
    for command in ("lineage", "reproduce"):
        result = edgeq("--workspace", shop, command, shop / "float.tflite")
        assert (result.status, result.out) == (1, "")
        assert "error[EQ611]" in result.err
        result = edgeq("--workspace", shop, command, shop / "none.tflite")
        assert result.status == 2
        assert "no such file" in result.err


@pytest.mark.slow
def test_arrays_given_in_python_must_be_saved_to_rebuild(shop: Path) -> None:
    with np.load(shop / "c.npz") as loaded:
        x = loaded["x"]
    made = convert(shop / "float.tflite", shop / "int8.tflite", scheme="int8", calibration=x)
    assert made.lineage.data["calibration"].path is None
    with pytest.raises(ModelError, match="given as arrays in Python") as caught:
        reproduce(made.lineage, shop / "again.tflite")
    assert caught.value.reported_code == "EQ324"
    np.savez(shop / "saved.npz", x=x)
    again = reproduce(made.lineage, shop / "again.tflite", data={"calibration": shop / "saved.npz"})
    assert again.same
    assert again.differs == ()
    assert differences(made.lineage) == []


def test_a_folders_digest_is_of_its_content(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        (folder / "a").mkdir(parents=True)
        (folder / "a" / "x").write_bytes(b"1")
    assert file_record(one).sha256 == file_record(other).sha256
    assert file_record(one).size_bytes == 1
    (other / "a" / "x").rename(other / "a" / "y")
    assert file_record(one).sha256 != file_record(other).sha256


def test_lineages_are_found_in_any_record() -> None:
    inner = {"schema": SCHEMA, "output": {}}
    assert list(lineages({"candidates": [{"made": inner}, {"made": None}], "x": 1})) == [inner]
