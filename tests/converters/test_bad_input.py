"""Bad input to `edgeq convert`: an error code, one line, a hint, exit status 1, and an unchanged output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.conversion import Recipe, Scheme, convert
from edgeq.errors import DataError, ModelError, UsageError
from edgeq_converters.errors import CODES
from edgeq_converters.recipe import Effort
from edgeq_converters.worker.client import run_worker

pytestmark = pytest.mark.convert
Edgeq = Callable[..., Any]
GOOD = np.zeros((6, 8, 8, 1), np.float32)


def refused(result: Any, code: str, *words: str, output: Path | None = None, status: int = 1) -> None:
    """Check an error of the command line."""
    lines = [line for line in result.err.splitlines() if line.startswith(("error", "hint", "Traceback"))]
    assert lines[0].startswith(f"error[{code}]: "), result.err
    assert "Traceback" not in result.err
    for word in words:
        assert word in lines[0], lines[0]
    assert result.status == status
    assert result.out == ""
    if output is not None:
        assert output.read_bytes() == b"what was there before"
        assert [entry.name for entry in output.parent.iterdir() if entry.name.startswith(".")] == []


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """An existing output file in its own folder."""
    path = tmp_path / "out" / "model.tflite"
    path.parent.mkdir()
    path.write_bytes(b"what was there before")
    return path


def _nan(where: float) -> np.ndarray:
    samples = GOOD.copy()
    samples[2, 0, 1, 0] = where
    return samples


BAD_CALIBRATION = {
    "nan": ({"x": _nan(np.nan)}, "EQ204", ["`x`", "nan at index [2, 0, 1, 0]"]),
    "infinite": ({"x": _nan(np.inf)}, "EQ204", ["inf at index [2, 0, 1, 0]"]),
    "too large for float32": ({"x": GOOD.astype(np.float64) + 1e300}, "EQ204", ["1e+300"]),
    "wrong shape": ({"x": np.zeros((6, 9, 8, 1))}, "EQ203", ["(n, 8, 8, 1)", "(n, 9, 8, 1)"]),
    "missing dimension": ({"x": np.zeros((6, 8, 8))}, "EQ203", ["(n, 8, 8)"]),
    "a single number": ({"x": np.array(3.0)}, "EQ203", ["an array of samples"]),
    "empty": ({"x": GOOD[:0]}, "EQ202", ["empty", "(0, 8, 8, 1)"]),
    "text": ({"x": np.array(["a", "b"])}, "EQ205", ["numbers"]),
    "labels only": ({"y": np.arange(3)}, "EQ205", ["`x`"]),
    "two arrays, none of them x": ({"a": GOOD, "b": GOOD}, "EQ205", ["`image`", "`a`, `b`"]),
    "arrays of two lengths": ({"x": GOOD, "b": GOOD[:2]}, "EQ203", ["number of samples"]),
    "objects": ({"x": np.array([{}, {}], object)}, "EQ201", ["Python objects"]),
}


@pytest.mark.first_is_quick
@pytest.mark.parametrize("name", BAD_CALIBRATION)
def test_bad_calibration(models: Path, output: Path, tmp_path: Path, edgeq: Edgeq, name: str) -> None:
    arrays, code, words = BAD_CALIBRATION[name]
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays, allow_pickle=True)
    command = ["convert", models / "float.tflite", "-o", output, "--scheme", "int8", "--calibration", path]
    refused(edgeq(*command), code, str(path), *words, output=output)


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 half an archive"])
def test_calibration_that_is_not_a_file_of_arrays(
    models: Path, output: Path, tmp_path: Path, edgeq: Edgeq, content: bytes
) -> None:
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    command = ["convert", models / "float.tflite", "-o", output, "--scheme", "int8", "--calibration"]
    refused(edgeq(*command, path), "EQ201", str(path), output=output)
    refused(edgeq(*command, tmp_path / "none.npz"), "EQ201", "no such data file", output=output)


def test_a_truncated_npz(models: Path, data: Path, output: Path, tmp_path: Path, edgeq: Edgeq) -> None:
    path = tmp_path / "half.npz"
    path.write_bytes(data.read_bytes()[:4000])
    command = ["convert", models / "float.tflite", "-o", output, "--scheme", "int8", "--calibration", path]
    refused(edgeq(*command), "EQ201", str(path), output=output)


def test_int8_without_calibration(models: Path, output: Path, edgeq: Edgeq) -> None:
    result = edgeq("convert", models / "float.tflite", "-o", output, "--scheme", "int8")
    refused(result, "EQ209", "calibration", output=output)
    assert "--calibration C.npz" in result.err


def test_sources_that_are_not_models(models: Path, output: Path, tmp_path: Path, edgeq: Edgeq) -> None:
    def run(source: Path) -> Any:
        return edgeq("convert", source, "-o", output, "--scheme", "float32")

    refused(run(tmp_path / "none.keras"), "EQ301", "no such model file", output=output)
    text, empty, folder = tmp_path / "text.tflite", tmp_path / "empty.h5", tmp_path / "folder"
    text.write_text("this is no model at all")
    empty.touch()
    folder.mkdir()
    refused(run(text), "EQ302", str(text), "not a model", output=output)
    refused(run(empty), "EQ302", "an empty file", output=output)
    refused(run(folder), "EQ302", "saved_model.pb", output=output)
    half = tmp_path / "half.keras"
    half.write_bytes((models / "model.keras").read_bytes()[:3000])
    refused(run(half), "EQ305", "truncated", output=output)


@pytest.mark.slow
def test_a_truncated_h5_and_a_damaged_saved_model(
    models: Path, output: Path, tmp_path: Path, edgeq: Edgeq
) -> None:
    half = tmp_path / "half.h5"
    half.write_bytes((models / "legacy.h5").read_bytes()[:2000])
    result = edgeq("convert", half, "-o", output, "--scheme", "float32")
    refused(result, "EQ305", "truncated or damaged .h5", output=output)
    folder = tmp_path / "damaged"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"\x08\x01\x12garbage")
    result = edgeq("convert", folder, "-o", output, "--scheme", "float32")
    refused(result, "EQ305", "TensorFlow cannot load", output=output)


@pytest.mark.slow
def test_open_dimensions_besides_the_batch(models: Path, output: Path, edgeq: Edgeq) -> None:
    result = edgeq("convert", models / "open.keras", "-o", output, "--scheme", "float32")
    refused(result, "EQ306", "`image`", "(?, ?, ?, 1)", output=output)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_tflite(models: Path, output: Path, tmp_path: Path, edgeq: Edgeq, share: float) -> None:
    whole = (models / "float.tflite").read_bytes()
    half = tmp_path / "half.tflite"
    half.write_bytes(whole[: max(8, int(len(whole) * share))])
    result = edgeq("convert", half, "-o", output, "--scheme", "float16")
    refused(result, "EQ303", "truncated or damaged", output=output)


@pytest.mark.slow
def test_a_quantized_source_is_refused(
    models: Path, data: Path, output: Path, tmp_path: Path, edgeq: Edgeq
) -> None:
    for scheme in ("int8", "dynamic"):  # float16 is only how weights were stored: it is taken
        made = tmp_path / f"{scheme}.tflite"
        convert(models / "float.tflite", made, scheme=scheme, calibration=data)
        command = ["convert", made, "-o", output, "--scheme", "int8", "--calibration", data]
        refused(edgeq(*command), "EQ304", "already quantized", "expected a float32 model", output=output)


@pytest.mark.slow
def test_an_operation_that_stays_float_is_named(models: Path, data: Path, output: Path, edgeq: Edgeq) -> None:
    command = ["convert", models / "angle.tflite", "-o", output, "--scheme", "int8", "--calibration", data]
    refused(edgeq(*command), "EQ307", "ATAN2", "stayed float", output=output)


@pytest.mark.slow
def test_a_model_that_gives_nan(models: Path, data: Path, output: Path, tmp_path: Path, edgeq: Edgeq) -> None:
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    flatbuffers = pytest.importorskip("flatbuffers")
    model = schema.ModelT.InitFromPackedBuf((models / "float.tflite").read_bytes(), 0)
    for buffer in model.buffers:
        if buffer.data is not None and len(buffer.data) == 4 * 4 * 4 * 4 * 3:  # the last layer's weights
            buffer.data = np.full(4 * 4 * 4 * 3, 3e38, np.float32).view(np.uint8)
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    broken = tmp_path / "nan.tflite"
    broken.write_bytes(bytes(builder.Output()))
    command = ["convert", broken, "-o", output, "--scheme", "int8", "--calibration", data]
    refused(edgeq(*command), "EQ309", "tensor", output=output)


@pytest.mark.slow
def test_values_that_overflow(models: Path, output: Path, tmp_path: Path, edgeq: Edgeq) -> None:
    path = tmp_path / "huge.npz"
    np.savez(path, x=np.random.default_rng(0).choice([-3.4e38, 3.4e38], (20, 8, 8, 1)).astype(np.float32))
    command = ["convert", models / "float.tflite", "-o", output, "--scheme", "int8", "--calibration", path]
    refused(edgeq(*command), "EQ309", "overflow float32", output=output)


def test_invalid_arguments(models: Path, data: Path, output: Path, edgeq: Edgeq) -> None:
    source = models / "float.tflite"
    refused(
        edgeq("convert", source, "-o", output, "--scheme", "int5"), "EQ101", "int5", status=2, output=output
    )
    command = ["convert", source, "-o", output, "--scheme", "float16", "--io", "int8"]
    refused(edgeq(*command), "EQ101", "--io int8", status=2, output=output)
    refused(edgeq("convert", source, "-o", source, "--scheme", "float16"), "EQ101", "replace", status=2)
    with pytest.raises(UsageError):
        convert(source, output, scheme="int5")


def test_an_output_that_cannot_be_written(models: Path, tmp_path: Path, edgeq: Edgeq) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    source = models / "float.tflite"
    refused(edgeq("convert", source, "-o", tmp_path, "--scheme", "float32"), "EQ311", "it is a folder")
    refused(edgeq("convert", source, "-o", blocked / "m.tflite", "--scheme", "float32"), "EQ311", "no file")


def test_an_empty_generator(models: Path, output: Path) -> None:
    with pytest.raises(DataError) as caught:
        convert(models / "float.tflite", output, scheme="int8", calibration=iter(()))
    assert (caught.value.reported_code, caught.value.exit_status) == ("EQ202", 1)
    assert "is empty" in caught.value.message
    assert output.read_bytes() == b"what was there before"


@pytest.mark.slow
def test_all_forms_of_samples_in_python_give_the_same_model(models: Path, data: Path, tmp_path: Path) -> None:
    with np.load(data) as loaded:
        x = loaded["x"]
    given = [
        data,
        x,
        {"image": x},
        list(x),
        (s for s in x),
        ({"image": s} for s in x),
        ([s[None]] for s in x),
    ]
    recipe = Recipe(scheme=Scheme.INT8, effort=Effort.QUICK)
    made = [
        convert(models / "float.tflite", tmp_path / f"{i}.tflite", recipe=recipe, calibration=samples).sha256
        for i, samples in enumerate(given)
    ]
    assert len(set(made)) == 1


@pytest.mark.slow
def test_a_folder_of_images(models: Path, output: Path, tmp_path: Path, edgeq: Edgeq) -> None:
    Image = pytest.importorskip("PIL.Image")
    random, folder = np.random.default_rng(5), tmp_path / "images"
    for name in ("b", "a", "c"):
        (folder / name).mkdir(parents=True)
        for number in range(4):
            pixels = random.integers(0, 255, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    command = ["convert", models / "float.tflite", "-o", output, "--scheme", "int8", "--calibration", folder]
    result = edgeq(*command)
    assert result.status == 0, result.err
    assert "resized" not in result.err
    Image.fromarray(np.zeros((16, 12), np.uint8)).save(folder / "a" / "large.png")
    assert "1 of 13 images were resized to 8x8" in edgeq(*command).err
    output.write_bytes(b"what was there before")
    (folder / "a" / "broken.png").write_bytes(b"no image")
    refused(edgeq(*command), "EQ210", "broken.png", output=output)
    (tmp_path / "none").mkdir()
    refused(edgeq(*command[:-1], tmp_path / "none"), "EQ210", "subfolder", output=output)


@pytest.mark.slow
def test_a_killed_worker_is_reported_in_one_line(models: Path, data: Path, output: Path) -> None:
    def end_the_child(step: str, done: int, total: int) -> None:
        # The worker is the only child of this thread's process that runs the worker module.
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = entry.read_bytes().split(b"\0")
                parent = (entry.parent / "stat").read_text().rsplit(")", 1)[1].split()[1]
            except (FileNotFoundError, ProcessLookupError):  # another process that just ended
                continue
            if b"edgeq_converters.worker" in words and int(parent) == os.getpid():
                os.kill(int(entry.parent.name), 11)

    with pytest.raises(ModelError) as caught:
        convert(models / "float.tflite", output, scheme="int8", calibration=data, on_progress=end_the_child)
    assert caught.value.reported_code == "EQ310"
    assert "SIGSEGV" in caught.value.message
    assert output.read_bytes() == b"what was there before"


def test_a_worker_past_its_deadline_is_killed(models: Path, data: Path, output: Path) -> None:
    with pytest.raises(ModelError, match=r"not done within 0\.05 s"):
        convert(models / "float.tflite", output, scheme="int8", calibration=data, deadline_s=0.05)
    assert output.read_bytes() == b"what was there before"


def test_a_missing_extra_names_the_command(
    models: Path, data: Path, output: Path, tmp_path: Path, edgeq: Edgeq, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What an installation without the extra looks like to the worker.
    (tmp_path / "blocked" / "ai_edge_litert").mkdir(parents=True)
    (tmp_path / "blocked" / "ai_edge_litert" / "__init__.py").write_text(
        "raise ModuleNotFoundError('No module named ai_edge_litert', name='ai_edge_litert')"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "blocked"))
    result = edgeq("convert", models / "float.tflite", "-o", output, "--scheme", "float16")
    refused(result, "EQ104", "ai_edge_litert is not installed", status=2, output=output)
    assert "pip install 'edgeq[convert]'" in result.err


@pytest.mark.slow
def test_the_json_error_of_a_separate_process(models: Path, output: Path, tmp_path: Path) -> None:
    program = "import sys; from edgeq.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["convert", str(tmp_path / "none.keras"), "-o", str(output), "--scheme", "int8", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert (document["schema"], document["error"]["code"]) == ("edgeq.error/1", "EQ301")
    assert len(done.stderr.splitlines()) == 2


def test_every_code_is_documented() -> None:
    root = Path(run_worker.__code__.co_filename).parent.parent
    used = {
        word
        for file in root.rglob("*.py")
        if file.name != "errors.py"
        for word in file.read_text(encoding="utf-8").replace('"', " ").split()
        if word.startswith("EQ") and word[2:].isdigit()
    }
    assert used <= set(CODES)


def test_the_heavy_libraries_stay_out_of_the_caller() -> None:
    program = (
        "import sys; import edgeq.conversion, edgeq.evaluation, edgeq_converters.worker.client;"
        "print(*{'tensorflow', 'keras', 'ai_edge_litert', 'litert_quantizer'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
