"""Gain of quantization-aware training where conversion alone loses accuracy, over several seeds.

`python -m benchmarks.qat [--json] [--seeds 5] [--cases NAME:SCHEME,...] [--keep FOLDER]`

The models are inverted residuals with hard-swish, which equalization cannot cross, trained on noisy digits
from channels of unequal size (`hswish-spread`; `hswish` starts from equal channels), in int8 and with
weights of four bits. Each tuned file is compared with plain min/max ranges, with the default conversion of
the model (the best that conversion does), and with the default conversion after as much further training in
float. The test samples take part in no training, calibration or choice.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.figures import Figure, last_line
from benchmarks.qat_models import FURTHER

CASES = "hswish-spread:int8,hswish-spread:int4"
COLUMNS = ("float", "plain", "further", "ptq", "qat")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One seed of one case: top-1 on the test samples.

    Attributes:
        plain: min/max ranges, nothing corrected.
        further: the default conversion of the model trained on in float.
        ptq: the default conversion of the model.
        qat: the integer file of what `edgeq tune` wrote: that of ptq where it kept the model as it was.
    """

    case: str
    seed: int
    float_: float
    plain: float
    further: float
    ptq: float
    qat: float
    kept: str
    seconds: float

    def value(self, column: str) -> float:
        """Return the accuracy of one of COLUMNS."""
        return float(getattr(self, "float_" if column == "float" else column))


def measure(case: str, seed: int, folder: Path) -> Row:
    """Train one model, make each conversion of it, and tune it."""
    from edgeq.conversion import Recipe, Scheme, Switch, convert, tune
    from edgeq.evaluation import evaluate

    name, scheme = case.split(":")
    if not (folder / "test.npz").exists():
        command = [sys.executable, "-m", "benchmarks.qat_models", name, str(seed), str(folder)]
        subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).resolve().parents[1])
    started = time.perf_counter()
    done = tune(
        folder / "model.keras",
        folder / f"tuned-{scheme}.keras",
        training=folder / "training.npz",
        validation=folder / "test.npz",  # only measured; the choices use held-out samples of training.npz
        scheme=scheme,
        epochs=FURTHER,
        seed=seed,
    )
    seconds = time.perf_counter() - started
    # Every operation that supports weights of four bits, so that the compared files have the same size.
    best = Recipe(scheme=Scheme(scheme), int4_sqnr_db=0.0)
    plain = replace(best, calibrator="minmax", bias_correction=Switch.OFF, equalization=Switch.OFF)
    others = {}
    for column, source, recipe in (("plain", "model.keras", plain), ("further", "further.keras", best)):
        output = folder / f"{column}-{scheme}.tflite"
        convert(folder / source, output, recipe=recipe, calibration=folder / "calibration.npz")
        others[column] = evaluate(output, folder / "test.npz").accuracy or 0.0
    measured = {name: value or 0.0 for name, value in done.accuracy.items()}
    return Row(
        case=case,
        seed=seed,
        float_=measured["float"],
        ptq=measured["ptq"],
        qat=measured[done.kept],
        kept=done.kept,
        seconds=seconds,
        **others,
    )


def figures(case: str, rows: list[Row]) -> list[Figure]:
    """Return the figures of a case over all seeds."""
    gains = [100 * (row.qat - row.ptq) for row in rows]
    longer = [100 * (row.qat - row.further) for row in rows]
    lost = [100 * (row.float_ - row.ptq) for row in rows]

    def one(what: str, value: float, peer: float | None, reach: str) -> Figure:
        return Figure(name=f"{case} {what}", value=round(value, 3), unit="points", peer=peer, reach=reach)

    return [
        one("top-1 that the best conversion loses, mean", statistics.mean(lost), None, ">0"),
        one("top-1 gained over the best conversion, mean", statistics.mean(gains), 0.0, ">0"),
        one("top-1 gained over the best conversion, least of the seeds", min(gains), 0.0, ">=0"),
        one("top-1 gained over training on in float, mean", statistics.mean(longer), 0.0, ">0"),
        Figure(
            name=f"{case} share of the lost top-1 that tuning brings back",
            value=round(statistics.mean(gains) / max(statistics.mean(lost), 1e-9), 3),
            unit="share",
            peer=None,
            reach=">=0.5",
        ),
    ]


def main() -> None:
    """Measure, print the table, and end with the JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print only the JSON line")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cases", default=CASES)
    parser.add_argument("--keep", type=Path, help="folder of the models; existing ones are reused")
    asked = parser.parse_args()

    def show(line: str) -> None:
        if not asked.json:
            print(line, flush=True)

    measured: list[Figure] = []
    show(f"{'case':22} {'seed':>4} " + " ".join(f"{column:>15}" for column in COLUMNS))
    with tempfile.TemporaryDirectory(prefix="edgeq-benchmark-") as temporary:
        root = (asked.keep or Path(temporary)).resolve()
        for case in asked.cases.split(","):
            rows = []
            for seed in range(asked.seeds):
                row = measure(case, seed, root / f"{case.split(':')[0]}-{seed}")
                rows.append(row)
                values = " ".join(f"{row.value(column):15.4f}" for column in COLUMNS)
                show(f"{case:22} {seed:4} {values}  kept {row.kept}, {row.seconds:.0f} s to tune")
            show(f"{case:22}      " + " ".join(_spread([r.value(c) for r in rows]) for c in COLUMNS))
            measured.extend(figures(case, rows))
    print(last_line(measured))


def _spread(values: list[float]) -> str:
    off = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.4f}+-{off:.4f}".rjust(15)


if __name__ == "__main__":
    main()
