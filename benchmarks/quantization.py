"""int8 side by side: TFLiteConverter, litert-quantizer's defaults, and edgeq, on several models.

`python -m benchmarks.quantization [--json] [--models kws,ic,...] [--keep FOLDER]`
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.figures import Figure, last_line
from benchmarks.quantization_models import NAMES

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
SOURCES = {"kws": "saved_model", "ic": "pretrainedResnet.h5"}
REACH_DB = {"kws": ">=33.0", "ic": ">=25.5"}
"""The goals; for the other models, TFLiteConverter's result is the goal."""
_EDGEQ = "import sys; from edgeq.cli import main; sys.exit(main(sys.argv[1:]))"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One tool on one model; `latency_us` is (median, half the spread of the middle half)."""

    model: str
    tool: str
    sqnr_db: float
    top1: float
    drop: float
    agreement: float
    latency_us: tuple[float, float]
    seconds: float


def _run(*words: object) -> float:
    started = time.perf_counter()
    command = [sys.executable, *(str(word) for word in words)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).resolve().parents[1]
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return time.perf_counter() - started


def _outputs(model: Path, x: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(model), num_threads=1)
    interpreter.allocate_tensors()
    given, taken = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    rows = []
    for sample in x.astype(np.float32):
        interpreter.set_tensor(given["index"], _fed(sample[None], given))
        interpreter.invoke()
        rows.append(interpreter.get_tensor(taken["index"])[0].copy())
    outputs = np.stack(rows).astype(np.float64)
    scale, zero = taken["quantization"]
    return (outputs - zero) * scale if scale else outputs


def _fed(sample: npt.NDArray[Any], given: dict[str, Any]) -> npt.NDArray[Any]:
    scale, zero = given["quantization"]
    if not scale:
        return sample
    quantized = np.clip(np.rint(sample.astype(np.float64) / scale) + zero, -128, 127)
    fed: npt.NDArray[Any] = quantized.astype(given["dtype"])
    return fed


def _latencies(models: dict[str, Path], x: npt.NDArray[Any]) -> dict[str, tuple[float, float]]:
    """Time single inferences, interleaved, so that all models meet the same load."""
    from ai_edge_litert.interpreter import Interpreter

    runs: dict[str, Callable[[], Any]] = {}
    for tool, path in models.items():
        interpreter = Interpreter(model_path=str(path), num_threads=1)
        interpreter.allocate_tensors()
        given = interpreter.get_input_details()[0]
        interpreter.set_tensor(given["index"], _fed(x[:1].astype(np.float32), given))
        runs[tool] = interpreter.invoke
    times: dict[str, list[float]] = {tool: [] for tool in runs}
    until = time.perf_counter() + 4
    while time.perf_counter() < until or len(times["edgeq"]) < 50:
        for tool, invoke in runs.items():
            started = time.perf_counter_ns()
            invoke()
            times[tool].append((time.perf_counter_ns() - started) / 1e3)
    latencies = {}
    for tool, values in times.items():
        quarter = statistics.quantiles(values, n=4)
        latencies[tool] = (quarter[1], (quarter[2] - quarter[0]) / 2)
    return latencies


def measure(name: str, folder: Path) -> list[Row]:
    """Convert one model with each tool and compare the files with TFLiteConverter's float32."""
    folder.mkdir(parents=True, exist_ok=True)
    data, source = folder, folder / "model.keras"
    if name in SOURCES:
        data, source = SHARED / name, SHARED / name / SOURCES[name]
    elif not source.exists():
        _run("-m", "benchmarks.quantization_models", name, folder)
    calibration = data / "calibration.npz"
    floating = folder / "float.tflite"
    models = {tool: folder / f"{tool}.tflite" for tool in ("tensorflow", "litert-quantizer", "edgeq")}
    peers = "benchmarks.quantization_peers"
    seconds = {
        "tensorflow": _run("-m", peers, "tensorflow", source, calibration, models["tensorflow"], floating),
        "litert-quantizer": _run("-m", peers, "litert", floating, calibration, models["litert-quantizer"]),
        "edgeq": _run(
            "-c", _EDGEQ, "convert", floating, "-o", models["edgeq"], "--scheme", "int8", "--io", "int8",
            "--calibration", calibration,
        ),
    }  # fmt: skip
    with np.load(data / "evaluation.npz") as kept:
        x, y = kept["x"], kept["y"]
    expected = _outputs(floating, x)
    latency = _latencies({"float32": floating, **models}, x)
    top1 = float((expected.argmax(1) == y).mean())
    rows = []
    for tool, path in models.items():
        got = _outputs(path, x)
        noise = float(np.square(expected - got).sum())
        right = float((got.argmax(1) == y).mean())
        rows.append(
            Row(
                model=name,
                tool=tool,
                sqnr_db=10 * float(np.log10(np.square(expected).sum() / max(noise, 1e-30))),
                top1=right,
                drop=top1 - right,
                agreement=float((got.argmax(1) == expected.argmax(1)).mean()),
                latency_us=latency[tool],
                seconds=seconds[tool],
            )
        )
    return rows


def figures(name: str, rows: list[Row]) -> list[Figure]:
    """Return the figures of one model."""
    of = {row.tool: row for row in rows}
    ours, peer = of["edgeq"], of["tensorflow"]
    ratio = ours.latency_us[0] / peer.latency_us[0]
    spread = ours.latency_us[1] / ours.latency_us[0] + peer.latency_us[1] / peer.latency_us[0]

    def one(what: str, value: float, unit: str, other: float | None, reach: str) -> Figure:
        return Figure(name=f"{name} {what}", value=value, unit=unit, peer=other, reach=reach)

    db = REACH_DB.get(name, f">={peer.sqnr_db:.6f}")
    return [
        one("int8 output SQNR", ours.sqnr_db, "dB", peer.sqnr_db, db),
        one(
            "int8 output SQNR over litert-quantizer's defaults",
            ours.sqnr_db - of["litert-quantizer"].sqnr_db,
            "dB",
            0.0,
            ">0",
        ),
        one("top-1 drop", ours.drop * 100, "points", peer.drop * 100, f"<={max(peer.drop * 100, 0):.6f}"),
        one("agreement with float", ours.agreement, "share", peer.agreement, f">={peer.agreement:.6f}"),
        one("latency over TFLiteConverter's", ratio, "ratio", 1.0, f"<={1 + max(spread, 0.02):.4f}"),
        one("seconds to convert", ours.seconds, "s", peer.seconds, "<90"),
    ]


def main() -> None:
    """Measure, print the table, and end with the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print only the JSON line")
    parser.add_argument("--models", default=",".join((*SOURCES, *NAMES)))
    parser.add_argument("--keep", type=Path, help="folder of the models; existing ones are reused")
    asked = parser.parse_args()
    measured: list[Figure] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = (asked.keep or Path(temporary)).resolve()
        for name in asked.models.split(","):
            if name in SOURCES and not (SHARED / name).exists():
                print(f"{name}: its folder is absent", file=sys.stderr)
                continue
            rows = measure(name, folder / name)
            measured.extend(figures(name, rows))
            for row in rows if not asked.json else ():
                print(
                    f"{row.model:18} {row.tool:18} SQNR {row.sqnr_db:6.2f} dB  top-1 {row.top1:.4f}"
                    f" (drop {row.drop * 100:+.2f})  agreement {row.agreement:.4f}"
                    f"  {row.latency_us[0]:8.1f} ± {row.latency_us[1]:.1f} us  {row.seconds:5.1f} s",
                    flush=True,
                )
    print(last_line(measured))


if __name__ == "__main__":
    main()
