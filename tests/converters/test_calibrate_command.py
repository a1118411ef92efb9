"""`edgeq calibrate`: write, merge, compare and use histograms; refuse other files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from edgeq.conversion import calibrate, convert, recipe_of
from edgeq.errors import DataError, UsageError
from edgeq_converters.calibration import drift, histogram_io
from edgeq_converters.calibration.histogram import histogram_of
from edgeq_converters.calibration.histogram_io import DataDigest, HistogramFile
from edgeq_converters.data.samples import clipped_share
from edgeq_converters.errors import ConverterError
from edgeq_converters.values import TensorInfo

Edgeq = Callable[..., Any]


def kept(values: np.ndarray, name: str = "a") -> HistogramFile:
    return HistogramFile(
        model_sha256="m" * 64,
        source_sha256="s" * 64,
        inputs=("t",),
        data=(DataDigest(sha256=name * 64, samples=len(values)),),
        histograms={"t": histogram_of(values), "empty": histogram_of([])},
    )


@pytest.fixture(scope="module")
def halves(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("halves")
    with np.load(data) as loaded:
        np.savez(folder / "1.npz", x=loaded["x"][:15])
        np.savez(folder / "2.npz", x=loaded["x"][15:])
    return folder / "1.npz", folder / "2.npz"


@pytest.mark.parametrize("ending", ["npz", "json"])
def test_a_file_round_trips(tmp_path: Path, ending: str) -> None:
    file = kept(np.random.default_rng(0).normal(size=(9, 50)))
    content = histogram_io.packed(file, as_json=ending == "json")
    (tmp_path / f"h.{ending}").write_bytes(content)
    assert histogram_io.read(tmp_path / f"h.{ending}") == file
    assert histogram_io.packed(file, as_json=ending == "json") == content


def test_merging_refuses_shared_samples_and_other_models() -> None:
    one, two = kept(np.ones((2, 3))), kept(np.zeros((3, 3)), "b")
    merged = histogram_io.merge(one, two, subject="two")
    assert (merged.samples, merged.histograms["t"].total) == (5, 15)
    with pytest.raises(ConverterError, match="would count twice"):
        histogram_io.merge(merged, one, subject="one")
    with pytest.raises(ConverterError, match="another model"):
        histogram_io.merge(one, replace(two, model_sha256="x" * 64), subject="two")


@pytest.mark.slow
def test_merged_files_convert_as_one_pass_over_all_samples(
    models: Path, data: Path, halves: tuple[Path, Path], tmp_path: Path, edgeq: Edgeq
) -> None:
    source = models / "float.tflite"
    files = [tmp_path / "1.npz", tmp_path / "2.json"]
    for half, file in zip(halves, files, strict=True):
        assert edgeq("calibrate", source, "--data", half, "-o", file).status == 0
    result = edgeq("calibrate", "--merge", *files, "-o", tmp_path / "all.npz", "--json")
    document = json.loads(result.out)
    assert (document["schema"], document["samples"], len(document["data"])) == ("edgeq.calibrate/1", 40, 2)
    # Settings that are evaluated on samples give other results without them.
    recipe = recipe_of("int8", calibrator="mse", bias_correction="off", equalization="off")
    once = convert(source, tmp_path / "once.tflite", recipe=recipe, calibration=data)
    merged = convert(source, tmp_path / "m.tflite", recipe=recipe, histograms=tmp_path / "all.npz")
    assert merged.sha256 == once.sha256
    assert merged.lineage.data["histograms"].sha256
    twice = edgeq("calibrate", "--merge", files[0], files[0], "-o", tmp_path / "twice.npz")
    assert "error[EQ212]" in twice.err
    assert not (tmp_path / "twice.npz").exists()


@pytest.mark.slow
def test_a_keras_model_gives_the_same_float_model_each_time(models: Path, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    source = models / "model.keras"
    done = calibrate(source, data, tmp_path / "h.npz")
    used = convert(source, tmp_path / "o.tflite", scheme="int8", histograms=tmp_path / "h.npz")
    assert done.samples == 40
    assert used.ops_by_kind()["integer"] == len(used.op_report)


@pytest.mark.slow
def test_histograms_of_another_model_are_refused(
    models: Path, data: Path, tmp_path: Path, edgeq: Edgeq
) -> None:
    file = tmp_path / "h.npz"
    calibrate(models / "float.tflite", data, file)
    for command in (
        [
            "convert",
            models / "batch4.tflite",
            "-o",
            tmp_path / "o.tflite",
            "--scheme",
            "int8",
            "--histograms",
            file,
        ],
        ["calibrate", models / "batch4.tflite", "--data", data, "-o", tmp_path / "o.npz", "--against", file],
    ):
        result = edgeq(*command)
        assert "error[EQ331]" in result.err
        assert result.status == 1


@pytest.mark.slow
def test_another_distribution_is_reported_with_figures(
    models: Path, data: Path, tmp_path: Path, edgeq: Edgeq
) -> None:
    file = tmp_path / "h.npz"
    calibrate(models / "float.tflite", data, file)
    with np.load(data) as loaded:
        np.savez(tmp_path / "wide.npz", x=loaded["x"] * 5 + 3)
    command = ["calibrate", models / "float.tflite", "--against", file, "-o", tmp_path / "o.npz", "--json"]
    same = edgeq(*command, "--data", data)
    assert all(entry["outside"] == 0 and entry["psi"] == 0 for entry in json.loads(same.out)["shifts"])
    other = edgeq(*command, "--data", tmp_path / "wide.npz")
    first = json.loads(other.out)["shifts"][0]
    assert first["outside"] > 0.3
    assert first["psi"] > 0.5
    assert "another distribution" in other.err


def test_the_shift_counts_values_outside_the_calibration() -> None:
    inside, outside = np.linspace(-1, 1, 1000), np.linspace(-2, 2, 1000)
    shift = drift.compare("t", histogram_of(inside), histogram_of(outside))
    assert shift.outside == pytest.approx(0.5, abs=0.01)
    assert drift.compare("t", histogram_of(inside), histogram_of(inside)).psi == 0
    still = drift.compare("t", histogram_of(np.zeros(5)), histogram_of(np.ones(5)))
    assert still.outside == 1.0
    tensor = TensorInfo(name="x", shape=(1, 2), dtype="int8", scale=0.1, zero_point=0)
    assert clipped_share(np.array([0.0, 12.7, 12.8, -13.0], np.float32), tensor) == 0.5
    assert clipped_share(np.array([127], np.int8), tensor) == 0.0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"PK",
        b"[1]",
        b'{"schema": "edgeq.histograms/2"}',
        b'{"schema":"edgeq.histograms/1"}',
        b"\xff\xfe",
    ],
)
def test_a_file_that_holds_no_histograms(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "h.json").write_bytes(content)
    with pytest.raises(ConverterError) as caught:
        histogram_io.read(tmp_path / "h.json")
    assert caught.value.code == "EQ212"


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_truncated_file_and_samples_in_its_place(tmp_path: Path, data: Path, share: float) -> None:
    whole = histogram_io.packed(kept(np.ones((2, 3))), as_json=False)
    (tmp_path / "h.npz").write_bytes(whole[: int(len(whole) * share)])
    for path in (tmp_path / "h.npz", data, tmp_path / "missing.npz"):
        with pytest.raises(ConverterError) as caught:
            histogram_io.read(path)
        assert caught.value.code == "EQ212"


@pytest.mark.parametrize(
    ("key", "value"),
    [("keys", [3, 2]), ("keys", [0, 0x7F80]), ("keys", [-1, 2]), ("counts", [1, 0]), ("counts", [1])],
)
def test_invalid_counts(tmp_path: Path, key: str, value: list[int]) -> None:
    document = json.loads(histogram_io.packed(kept(np.array([[1.0, 2.0]])), as_json=True))
    document["tensors"][1]["values"][key] = value
    (tmp_path / "h.json").write_text(json.dumps(document), "utf-8")
    with pytest.raises(ConverterError) as caught:
        histogram_io.read(tmp_path / "h.json")
    assert caught.value.code == "EQ212"


@pytest.mark.slow
def test_options_that_do_not_fit_together_are_usage_errors(
    models: Path, data: Path, tmp_path: Path, edgeq: Edgeq
) -> None:
    source, output = models / "float.tflite", tmp_path / "h.npz"
    for words in (
        ["calibrate", source, "-o", output],
        ["calibrate", "--data", data, "-o", output],
        ["calibrate", "--merge", output, "-o", output],
        ["calibrate", "--merge", output, output, "--data", data, "-o", output],
        ["calibrate", source, "--data", data, "-o", tmp_path / "h.txt"],
    ):
        assert edgeq(*words).status == 2
    with pytest.raises(UsageError):
        calibrate(source, data, tmp_path / "h")
    with pytest.raises(DataError):
        calibrate(source, tmp_path / "none.npz", output)


@pytest.mark.slow
def test_a_model_with_open_shapes_is_refused(models: Path, data: Path, tmp_path: Path, edgeq: Edgeq) -> None:
    pytest.importorskip("tensorflow")
    result = edgeq("calibrate", models / "open.keras", "--data", data, "-o", tmp_path / "h.npz")
    assert "error[EQ306]" in result.err
    assert not (tmp_path / "h.npz").exists()
