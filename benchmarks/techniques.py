"""Gain of each quantization technique: calibrators, steps and schemes, one at a time, on several models.

`python -m benchmarks.techniques [--json] [--models kws,ic,digits-mobilenet] [--keep FOLDER]`

Every figure is that of a written file on a whole evaluation set that took part in no calibration or choice:
SQNR of the dequantized outputs to the float .tflite, and top-1. Missing models are skipped.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, last_line
from edgeq_converters.calibration.calibrators import AUTO, CALIBRATORS

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
SOURCES = {"kws": "saved_model", "ic": "pretrainedResnet.h5"}
OWN = ("digits-mobilenet",)
STEPS = {"plain": "off off", "corrected": "on off", "equalized": "off on", "equalized, corrected": "on on"}
# Each calibrator with the parameters that `auto` tries for whole models, else with its default.
FIXED = tuple(text for name, entry in CALIBRATORS.items() for text in entry.whole_model or (name,))
STEPPED = ("minmax", "percentile:99.99")
NOISE_DB = 0.3
"""The difference between equally good solutions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One written file."""

    table: str
    name: str
    sqnr_db: float
    top1: float
    size_bytes: int
    notes: tuple[str, ...]


def recipes() -> dict[tuple[str, str], dict[str, Any]]:
    """Return {(table, name): the recipe's keys}."""
    off = {"bias_correction": "off", "equalization": "off"}
    keys: dict[tuple[str, str], dict[str, Any]] = {}
    for calibrator in (*FIXED, AUTO):
        keys["calibrators", calibrator] = {"scheme": "int8", "calibrator": calibrator, **off}
    for calibrator in STEPPED:
        for name, switches in STEPS.items():
            correction, equalization = switches.split()
            keys["steps", f"{calibrator}, {name}"] = {
                "scheme": "int8",
                "calibrator": calibrator,
                "bias_correction": correction,
                "equalization": equalization,
            }
    for scheme in ("float16", "dynamic"):
        keys["schemes", scheme] = {"scheme": scheme}
    for scheme in ("int8", "int16x8"):
        keys["schemes", f"{scheme}, minmax"] = {"scheme": scheme, "calibrator": "minmax", **off}
        keys["schemes", f"{scheme}, as it comes"] = {"scheme": scheme}
    keys["schemes", "int4, as it comes"] = {"scheme": "int4"}
    keys["schemes", "int4, all"] = {"scheme": "int4", "int4_sqnr_db": 0.0}
    return keys


def measure(name: str, folder: Path) -> tuple[float, list[Row]]:
    """Return the float model's top-1, and a row for each recipe."""
    from edgeq.conversion import Recipe, convert
    from edgeq.evaluation import evaluate

    folder.mkdir(parents=True, exist_ok=True)
    data, source = folder, folder / "model.keras"
    if name in SOURCES:
        data, source = SHARED / name, SHARED / name / SOURCES[name]
    elif not source.exists():
        command = [sys.executable, "-m", "benchmarks.quantization_models", name, str(folder)]
        subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).resolve().parents[1])
    floating = folder / "float.tflite"
    convert(source, floating, scheme="float32")
    top1 = evaluate(floating, data / "evaluation.npz").accuracy or 0.0
    rows = []
    for (table, what), keys in recipes().items():
        output = folder / "made.tflite"
        recipe = Recipe.from_dict({"schema": "edgeq.recipe/1", **keys})
        calibration = data / "calibration.npz" if recipe.scheme.needs_ranges else None
        done = convert(floating, output, recipe=recipe, calibration=calibration)
        metrics = evaluate(output, data / "evaluation.npz", reference=floating)
        rows.append(
            Row(
                table=table,
                name=what,
                sqnr_db=metrics.output_sqnr_db or 0.0,
                top1=metrics.accuracy or 0.0,
                size_bytes=done.size_bytes,
                notes=done.notes,
            )
        )
    return top1, rows


def figures(model: str, top1: float, rows: list[Row]) -> list[Figure]:
    """Return the gains of the techniques on one model."""
    of: Mapping[tuple[str, str], Row] = {(row.table, row.name): row for row in rows}

    def one(what: str, value: float, unit: str, peer: float | None, reach: str) -> Figure:
        return Figure(name=f"{model} {what}", value=round(value, 4), unit=unit, peer=peer, reach=reach)

    fixed = {name: of["calibrators", name].sqnr_db for name in FIXED}
    auto = of["calibrators", AUTO].sqnr_db
    plain = of["steps", "minmax, plain"].sqnr_db
    both = of["steps", "minmax, equalized, corrected"].sqnr_db
    four, whole = of["schemes", "int4, as it comes"], of["schemes", "int4, all"]
    eight = of["schemes", "int8, as it comes"]
    drop = 100 * (top1 - four.top1)
    return [
        one("auto calibrator over minmax", auto - fixed["minmax"], "dB", 0.0, f">=-{NOISE_DB}"),
        one("auto calibrator over the median of fixed ones", auto - _median(fixed), "dB", 0.0, ">0"),
        one("equalized and corrected over plain, minmax", both - plain, "dB", 0.0, ">0"),
        one("int4 over int4 in all operations", four.sqnr_db - whole.sqnr_db, "dB", 0.0, f">=-{NOISE_DB}"),
        one("int4 top-1 drop", drop, "points", 100 * (top1 - whole.top1), "<=1.0"),
        one("int4 top-1 below int8's", 100 * (eight.top1 - four.top1), "points", None, "<=1.0"),
        one("int4 size over int8's", four.size_bytes / eight.size_bytes, "ratio", 1.0, "<=0.6"),
    ]


def _median(values: Mapping[str, float]) -> float:
    return sorted(values.values())[len(values) // 2]


def main() -> None:
    """Measure, print the tables, and end with the JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print only the JSON line")
    parser.add_argument("--models", default=",".join((*SOURCES, *OWN)))
    parser.add_argument("--keep", type=Path, help="folder of the models; existing ones are reused")
    asked = parser.parse_args()
    measured: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="edgeq-benchmark-") as temporary:
        root = (asked.keep or Path(temporary)).resolve()
        for name in asked.models.split(","):
            if name in SOURCES and not (SHARED / name).exists():
                print(f"{name}: its folder is absent", file=sys.stderr)
                continue
            top1, rows = measure(name, root / name)
            measured.extend(figures(name, top1, rows))
            for row in rows if not asked.json else ():
                print(
                    f"{name:18} {row.table:12} {row.name:40} SQNR {row.sqnr_db:6.2f} dB"
                    f"  top-1 {row.top1:.4f} (float {top1:.4f})  {row.size_bytes / 1024:7.1f} KiB",
                    flush=True,
                )
    print(last_line(measured))


if __name__ == "__main__":
    main()
