"""The shared parts of the int8 benchmarks: run tools, compare their files on samples, print one table."""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.figures import Figure, last_line

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
EDGEQ = "import sys; from edgeq.cli import main; sys.exit(main(sys.argv[1:]))"
FLOAT = "float32"
"""The tool of the row that the others are compared with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a process took: seconds on the clock, and seconds of processor time."""

    seconds: float = 0.0
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One tool on one model.

    Attributes:
        sqnr_db: of the outputs, to the float model's.
        drop: of top-1, to the float model's.
        agreement: share of the samples on which top-1 is the float model's.
        integer: share of the operations that compute in integers.
        latency_us: (median, half the spread of the middle half).
    """

    model: str
    tool: str
    sqnr_db: float
    top1: float
    drop: float
    agreement: float
    integer: float
    latency_us: tuple[float, float]
    spent: Spent

    def __str__(self) -> str:
        return (
            f"{self.model:20} {self.tool:16} SQNR {self.sqnr_db:6.2f} dB  top-1 {self.top1:.4f}"
            f" (drop {self.drop * 100:+.2f})  agreement {self.agreement:.4f}  integer {self.integer:.3f}"
            f"  {self.latency_us[0]:8.1f} ± {self.latency_us[1]:.1f} us"
            f"  {self.spent.seconds:5.1f} s, {self.spent.cpu_s:5.1f} s of processor time"
        )


def run(*words: object) -> tuple[Spent, str]:
    """Run this Python with some arguments; return what that took, and its standard output."""
    command = [sys.executable, *(str(word) for word in words)]
    started, before = time.perf_counter(), _cpu_of_children()
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    spent = Spent(seconds=time.perf_counter() - started, cpu_s=_cpu_of_children() - before)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return spent, done.stdout


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def outputs_of(model: Path, x: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the real values of a model's first output, samples first."""
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


def latencies_of(models: Mapping[str, Path], x: npt.NDArray[Any]) -> dict[str, tuple[float, float]]:
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
    while time.perf_counter() < until or len(next(iter(times.values()))) < 50:
        for tool, invoke in runs.items():
            started = time.perf_counter_ns()
            invoke()
            times[tool].append((time.perf_counter_ns() - started) / 1e3)
    latencies = {}
    for tool, values in times.items():
        quarter = statistics.quantiles(values, n=4)
        latencies[tool] = (quarter[1], (quarter[2] - quarter[0]) / 2)
    return latencies


def integer_share(path: Path) -> float:
    """Return the share of a file's operations that have no float tensor.

    Conversions of its inputs and outputs do not count.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    kinds = {int(each["index"]): np.dtype(each["dtype"]).kind for each in interpreter.get_tensor_details()}
    ends = {
        int(each["index"]) for each in (*interpreter.get_input_details(), *interpreter.get_output_details())
    }
    floating = []
    for each in interpreter._get_ops_details():  # noqa: SLF001 # nothing public lists them
        tensors = {int(index) for index in (*each["inputs"], *each["outputs"])}
        border = each["op_name"] in {"QUANTIZE", "DEQUANTIZE"} and tensors & ends
        if each["op_name"] != "DELEGATE" and not border:
            floating.append(any(kinds.get(index) == "f" for index in tensors))
    return 1 - sum(floating) / max(len(floating), 1)


def compared(
    name: str, floating: Path, made: Mapping[str, tuple[Path, Spent]], evaluation: Path
) -> list[Row]:
    """Return a row for the float model and one for each tool, on samples that no step has seen.

    Args:
        made: tool -> (its file, what it took).
        evaluation: a .npz with the samples `x` and the labels `y`.
    """
    with np.load(evaluation) as kept:
        x, y = kept["x"], kept["y"]
    all_made = {FLOAT: (floating, Spent()), **made}
    latency = latencies_of({tool: path for tool, (path, _) in all_made.items()}, x)
    expected = outputs_of(floating, x)
    top1 = float((expected.argmax(1) == y).mean())
    rows = []
    for tool, (path, spent) in all_made.items():
        got = outputs_of(path, x)
        right = float((got.argmax(1) == y).mean())
        noise = float(np.square(expected - got).sum())
        rows.append(
            Row(
                model=name,
                tool=tool,
                sqnr_db=10 * float(np.log10(np.square(expected).sum() / max(noise, 1e-30))),
                top1=right,
                drop=top1 - right,
                agreement=float((got.argmax(1) == expected.argmax(1)).mean()),
                integer=integer_share(path),
                latency_us=latency[tool],
                spent=spent,
            )
        )
    return rows


def main(
    description: str | None,
    names: Sequence[str],
    *,
    measure: Callable[[str, Path], list[Row]],
    figures: Callable[[str, list[Row]], list[Figure]],
    data: Callable[[str], Path | None],
) -> None:
    """Measure the models that are asked for, print the table, and end with the JSON line.

    Args:
        measure: name and folder of a model -> its rows.
        data: the folder that a model needs; None where it needs none.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print only the JSON line")
    parser.add_argument("--models", default=",".join(names))
    parser.add_argument("--keep", type=Path, help="folder of the models; existing ones are reused")
    asked = parser.parse_args()
    measured: list[Figure] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = (asked.keep or Path(temporary)).resolve()
        for name in asked.models.split(","):
            needed = data(name)
            if needed is not None and not needed.exists():
                print(f"{name}: the folder {needed} is absent", file=sys.stderr)
                continue
            rows = measure(name, folder / name)
            measured.extend(figures(name, rows))
            for row in () if asked.json else rows:
                print(row, flush=True)
    print(last_line(measured))
